"""``Trainer.obey(command) -> event``: the protocol's commands, put into numbers.

The trainer knows the model, the data and the block it works on; it knows no sockets, no peers and no time.
Frames come as buffers by name, wherever they lie: in shared memory for a node, in plain memory for a test.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.batches import Batches, heldout_batches
from deca_node.numerics.blocks import partition
from deca_node.numerics.engine import BlockEngine, Neighbour
from deca_node.numerics.flows import KEYFRAME_CODEC, Flow
from deca_node.numerics.model import LoadedModel, check_sequence_length, load_model, parameter_hash, save_model
from deca_node.numerics.objective import backward, evaluate
from deca_node.numerics.options import TrainerOptions
from deca_node.numerics.packing import PackedData, load_dataset
from deca_node.numerics.quantize import CODECS
from deca_node.numerics.start_values import StartValues, nothing
from deca_node.numerics.trace import Trace
from deca_node.numerics.updates import Layout
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import TrainerError
from deca_node.protocol.frames import FrameId
from deca_node.protocol.run import ModelFacts
from deca_node.protocol.schedule import Schedule
from deca_node.protocol.sizes import FrameSizes

Frames = Callable[[FrameId], memoryview]
"""The bytes of a frame, writable."""


class Trainer:
    """One node's model and data, and the block that is being trained."""

    def __init__(self, options: TrainerOptions, loaded: LoadedModel, data: PackedData, frames: Frames) -> None:
        self.model = loaded.model
        self._options = options
        self._settings = options.settings
        self._tokenizer = loaded.tokenizer
        self._data = data
        self._frames = frames
        self._device = next(loaded.model.parameters()).device
        self._blocks = partition(loaded.model, self._settings.block_layers)
        # How long the final flush is depends on the graph; what is asked of the schedule here does not.
        self._schedule = Schedule(self._settings, len(self._blocks), final_flush_mixes=0)
        self._batches = Batches(data.train, self._settings.batch_size, options.seed)
        self._start = StartValues(Path(options.directory) / "start")
        self._trace = Trace(Path(options.directory) / "trace") if options.trace else None
        self._engine: BlockEngine | None = None
        self._step_began = 0.0
        torch.manual_seed(options.seed)
        if options.gradient_checkpointing:
            loaded.model.gradient_checkpointing_enable({"use_reentrant": False})

    @classmethod
    def load(cls, options: TrainerOptions, frames: Frames, note: Callable[[str], None]) -> "Trainer":
        """Load model and data as the options say. Raises ModelError or DataError."""
        if options.threads:
            torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        note(f"loading {options.model} on {device}")
        loaded = load_model(options.model, dtype=options.settings.dtype, device=device)
        check_sequence_length(loaded, options.settings.sequence_length)
        note(f"reading {options.data}")
        data = load_dataset(
            options.data,
            loaded.tokenizer,
            sequence_length=options.settings.sequence_length,
            holdout=options.holdout,
            seed=options.seed,
            bad_records="skip" if options.bad_records == "skip" else "stop",
        )
        found = data.summary
        note(
            f"{found.records:,} records with {found.tokens:,} tokens: {found.train_sequences:,} sequences to train on "
            f"({found.trained_tokens:,} tokens in the loss), {found.heldout_sequences:,} held out"
        )
        if found.skipped:
            note(f"left out {found.skipped:,} bad records; the first: {'; '.join(found.skipped_sentences)}")
        return cls(options, loaded, data, frames)

    def ready(self) -> e.TrainerReady:
        """What all nodes must find equal: the model's hash and blocks; and what frames of each block measure."""
        elements = tuple(block.elements for block in self._blocks)
        facts = ModelFacts(parameter_hash(self.model), tuple(block.name for block in self._blocks), elements)
        layouts = [Layout(CODECS[self._settings.codec], n, self._settings.signal) for n in elements]
        sizes = FrameSizes(
            keyframe_bytes=tuple(KEYFRAME_CODEC.nbytes(n) for n in elements),
            update_bytes=tuple(layout.update_nbytes for layout in layouts),
            signal_bytes=tuple(layout.signal_nbytes for layout in layouts),
        )
        return e.TrainerReady(facts, sizes)

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Do what is asked, and say that it is done. Raises DecaError where it cannot be."""
        match command:
            case c.Activate():
                return self._activate(command)
            case c.Connect():
                return self._connect(command)
            case c.HalfStep():
                return self._half_step(command)
            case c.Mix():
                return self._mix(command)
            case c.Freeze():
                return self._freeze(command)
            case c.Evaluate():
                return self._evaluate(command)
            case c.Save():
                return self._save(command)

    # --- one activation -----------------------------------------------------------------------------

    @property
    def engine(self) -> BlockEngine:
        """The active block's engine."""
        assert self._engine is not None, "no block is active"
        return self._engine

    def _activate(self, command: c.Activate) -> e.Activated:
        block = self._blocks[command.activation.block]
        origin = self._start.origin(self.model, block) if command.keyframe else nothing
        self._engine = BlockEngine.of(self.model, block, self._settings, origin)
        self._step_began = 0.0
        if command.keyframe:
            self._engine.keyframe(self._tensor(command.keyframe))
        return e.Activated(command.activation.index)

    def _connect(self, command: c.Connect) -> e.Connected:
        near = [Neighbour(n.peer, n.weight, self._tensor(n.keyframe)) for n in command.neighbours]
        ours = self._tensor(command.ours) if command.ours else torch.empty(0, dtype=torch.uint8)
        self.engine.connect(near, ours)
        return e.Connected(command.activation)

    def _half_step(self, command: c.HalfStep) -> e.HalfStepped:
        began = time.perf_counter()
        step_seconds = began - self._step_began if self._step_began else 0.0
        self._step_began = began
        figures: dict[str, float] = {}
        if command.gradient:
            gamma = self._learning_rate(command)
            figures = {"learning_rate": gamma, **self.engine.half_step(gamma, self._backward)}
        computed = time.perf_counter()
        if self._trace:
            self._trace.half_step(self.engine.flat.master, self.engine.flat.grad if command.gradient else None)
        if command.update:
            signal = self._schedule.signals(command.step)
            self.engine.encode_update(self._tensor(command.update), signal=signal, step_seconds=step_seconds)
        figures["compute_seconds"] = computed - began
        figures["encode_seconds"] = time.perf_counter() - computed
        return e.HalfStepped(command.step, command.update, figures)

    def _mix(self, command: c.Mix) -> e.Mixed:
        began = time.perf_counter()
        # The same buffer is the same tensor, so that one decoding of our own codes serves every edge.
        ours = {flow.ours: self._tensor(flow.ours) for flow in command.flows}
        flows = [Flow(flow.peer, self._tensor(flow.theirs), ours[flow.ours]) for flow in command.flows]
        figures = self.engine.mix(flows, command.fold)
        if self._trace:
            self._trace.mixed(command.step, self.engine.flat.master)
        return e.Mixed(command.step, {**figures, "mix_seconds": time.perf_counter() - began})

    def _freeze(self, command: c.Freeze) -> e.Frozen:
        self.engine.freeze()
        self._engine = None
        return e.Frozen(command.activation)

    def _backward(self) -> float:
        return backward(self.model, self._batches.next(), self._options.micro_batch, self._device)

    def _learning_rate(self, command: c.HalfStep) -> float:
        ordinal, total = self._schedule.gradient_ordinal(command.step), self._schedule.gradient_steps
        return deca.learning_rate(self._settings, ordinal, total)

    def _tensor(self, frame: FrameId) -> Tensor:
        return torch.frombuffer(self._frames(frame), dtype=torch.uint8)

    # --- between activations ------------------------------------------------------------------------

    def _evaluate(self, command: c.Evaluate) -> e.Evaluated:
        size = self._options.micro_batch or self._settings.batch_size
        batches = heldout_batches(self._data, size, self._options.eval_sequences)
        loss, tokens = evaluate(self.model, batches, self._device)
        return e.Evaluated(command.when, loss, tokens)

    def _save(self, command: c.Save) -> e.Saved:
        if self._engine is not None:
            self._freeze(c.Freeze(-1))
        path = save_model(self.model, self._tokenizer, Path(self._options.directory) / command.name)
        return e.Saved(str(path))


def choose_device(wanted: str) -> torch.device:
    """``auto`` takes a GPU where there is one. Raises TrainerError where the wanted one is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainerError(f"device = {wanted!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return device
