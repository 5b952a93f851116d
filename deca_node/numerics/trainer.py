"""``Trainer.obey(command) -> event``: carries out the protocol's commands on the model.

The trainer knows the model, the data and the active block. It knows no sockets, no peers and no time. It asks for
frames by name and gets buffers: in shared memory for a node, in plain memory for a test. After a trainer died, the next
one goes on from the newest sound checkpoint.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.data.dataset import PackedData
from deca_node.numerics.data.store.tokens import TOKENS
from deca_node.numerics.data.templates import use_template
from deca_node.numerics.device import choose_devices, share_threads
from deca_node.numerics.engine import BlockEngine, NewEdge, RefusedPeers
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.numerics.exchange.frames import FrameLayout
from deca_node.numerics.exchange.norms import Norms
from deca_node.numerics.gradient import Gradients
from deca_node.numerics.learning.isolation import way_of
from deca_node.numerics.learning.prepared import load_for, prepare
from deca_node.numerics.learning.tasks import Data, judge, length_told, load_data, progress_notes, told, trained_on
from deca_node.numerics.model.blocks import Block, partition
from deca_node.numerics.model.facts import check_sequence_length, parameter_hash
from deca_node.numerics.model.load import LoadedModel
from deca_node.numerics.model.save import save_model
from deca_node.numerics.ranks.leader import Leader
from deca_node.numerics.saving.checkpoints import Checkpoints, Moving, place_of, restore_place, restore_rng, rng_states
from deca_node.numerics.saving.choices import KeptChoice
from deca_node.numerics.saving.deltas import apply_delta, check_delta
from deca_node.numerics.saving.start_values import StartValues, nothing
from deca_node.numerics.saving.tensor_files import read_tensors
from deca_node.numerics.saving.trace import Trace
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts, agree
from deca_node.protocol.agreed.frames import FrameId, FrameSizes
from deca_node.protocol.agreed.schedule import Content, Schedule, Step
from deca_node.protocol.errors import StorageError, WireError
from deca_node.protocol.options import Note, TrainerOptions
from deca_node.storage.manifest import START, StoredActive, newest_sound

Frames = Callable[[FrameId], memoryview]
"""Returns the writable bytes of a frame."""


class Trainer:
    """One node's model and data, and the block that is trained now."""

    def __init__(
        self,
        options: TrainerOptions,
        loaded: LoadedModel,
        data: Data,
        frames: Frames,
        choice: KeptChoice | None = None,
        leader: Leader | None = None,
    ) -> None:
        self.model = loaded.model
        self._options = options
        self._settings = options.settings
        self._tokenizer = loaded.tokenizer
        self._beside = loaded.beside
        self._data = data
        self._frames = frames
        self._device = leader.device if leader else next(loaded.model.parameters()).device
        self._blocks = partition(loaded.model, self._settings.block_layers)
        # The length of the final flush depends on the graph; nothing that is asked of the schedule here does.
        self._schedule = Schedule(self._settings, len(self._blocks), final_flush_mixes=0)
        seed = options.seed if choice is None else choice.held_out.own_seed
        self._leader = leader
        self._gradients = Gradients(options, loaded, data, seed, leader, self._device)
        self._changed = choice.changed if choice else ""
        self._tokens = choice.weighed(trained_on(data)) if choice else trained_on(data)
        self._directory = Path(options.directory)
        self._start = StartValues(self._directory / START)
        self._trace = Trace(self._directory / "trace") if options.trace else None
        elements = tuple(block.elements for block in self._blocks)
        # These facts are about the model that the run starts from, before a checkpoint is restored.
        self._facts = ModelFacts(
            parameter_hash(loaded.model), tuple(b.name for b in self._blocks), elements, loaded.labels
        )
        if leader:
            leader.take_up(loaded.model)
        agreement = agree(self._settings, self._facts)
        self._checkpoints = Checkpoints(self._directory, agreement, loaded.model, self._blocks, self._start)
        self._agreement = agreement
        self._position = Step(0, 0)
        self._engine: BlockEngine | None = None
        self._activation = -1
        self._step_began = 0.0
        torch.manual_seed(options.seed)
        prepare(loaded, options)

    @classmethod
    def load(cls, options: TrainerOptions, frames: Frames, note: Note, leader: Leader | None = None) -> "Trainer":
        """Load model and data as the options say, and go on from the newest sound checkpoint in the node's folder.

        With a ``leader`` this is rank 0 of several. Raises ModelError, DataError, StorageError or RankLostError.
        """
        device = leader.device if leader else choose_devices(options.device, options.devices)[0]
        share_threads(options.threads, leader.ranks_here if leader and device.type == "cpu" else 1)
        note(f"loading {options.model} on {device}")
        settings = options.settings
        loaded = load_for(options, leader.home if leader else device)
        check_sequence_length(settings.sequence_length, loaded.positions_max, loaded.folder)
        for sentence in loaded.beside.told():
            note(sentence)
        use_template(loaded.tokenizer, options.chat_template)
        note(f"reading and tokenizing {options.data}")
        choice, store = KeptChoice(options, note), Path(options.directory) / TOKENS
        data = load_data(options, loaded, progress_notes(note, options.data), store, choice.held_out)
        for sentence in told(data, settings.sequence_length):
            note(sentence)
        if isinstance(data, PackedData) and settings.packing == "isolated":
            note(f"records in one sequence are kept apart by {way_of(loaded.model).value}")
        note("hashing the start model's parameters")
        trainer = cls(options, loaded, data, frames, choice, leader)
        note(length_told(settings, len(trainer._blocks), len(data.train)))
        trainer.resume(note)
        choice.keep()
        left = trainer._schedule.gradient_steps - trainer._schedule.gradient_ordinal(trainer._position)
        trainer._gradients.announce(left, note)
        trainer._gradients.join(trainer._blocks)
        return trainer

    def resume(self, note: Note) -> None:
        """Go on from the newest sound checkpoint, if there ever was one. To be called before all other methods.

        Raises StorageError if no checkpoint is sound, or if the newest one is of another run.
        """
        manifest = newest_sound(self._directory, self._agreement, note)
        if manifest is None:
            return
        self._checkpoints.restore(manifest)
        if manifest.active:
            self._restore_active(manifest.position, manifest.active)
        restore_place(self._gradients.batches, manifest.cursor, note, self._changed)
        restore_rng(manifest.rng, self._device)
        self._position = manifest.position
        note(f"going on from the checkpoint of activation {self._position.activation}, step {self._position.inner}")

    def _restore_active(self, position: Step, active: StoredActive) -> None:
        self._activation = position.activation
        self._engine = BlockEngine.of(self.model, self._block_of(position.activation), self._settings, nothing)
        counts = deca.Counts(*active.counts)
        names = ["master", "m", "v"] if counts.gradients else ["master"]
        self._engine.restore(read_tensors(self._directory / active.file.file, names), counts)

    def ready(self) -> e.TrainerReady:
        """The facts that must be equal on all nodes (hash and blocks of the start model, sizes of frames), and the
        position to go on from."""
        elements = self._facts.block_elements
        run = self._settings
        layouts = [FrameLayout(CODECS[run.codec], n, run.signal, run.moment_bits) for n in elements]
        sizes = FrameSizes(
            keyframe_bytes=tuple(KEYFRAME_CODEC.nbytes(n) for n in elements),
            update_bytes=tuple(layout.update_nbytes for layout in layouts),
            signal_bytes=tuple(layout.signal_nbytes for layout in layouts),
            v_bytes=tuple(layout.v_nbytes for layout in layouts),
        )
        devices = self._leader.names if self._leader else ()
        sharded = self._leader is not None and self._leader.sharded
        return e.TrainerReady(self._facts, sizes, self._position, {}, devices, sharded, self._tokens)

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Carry out a command and return the event that reports it. Raises DecaError if the command cannot be done."""
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
            case c.Checkpoint():
                return self._checkpoint(command)
            case c.Adopt():
                return self._adopt(command)

    # --- one activation -----------------------------------------------------------------------------

    @property
    def engine(self) -> BlockEngine:
        """The active block's engine."""
        assert self._engine is not None, "no block is active"
        return self._engine

    def _activate(self, command: c.Activate) -> e.Activated:
        block = self._blocks[command.activation.block]
        # x0 is kept even if no keyframe is needed: checkpoints hold differences to it, for late nodes.
        origin = self._start.origin(self.model, block)
        self._checkpoints.versions.thawed(block)
        self._engine = BlockEngine.of(self.model, block, self._settings, origin)
        limit = self._options.norm_limit
        settings = deca.of_block(self._settings, block.name)
        self._engine.norms = Norms.of(limit, settings, self._schedule, command.activation)
        self._activation = command.activation.index
        self._step_began = 0.0
        if command.keyframe:
            self._engine.keyframe(self._tensor(command.keyframe))
        return e.Activated(command.activation.index)

    def _connect(self, command: c.Connect) -> e.Connected:
        near = [NewEdge(n.peer, n.weight, self._tensor(n.keyframe) if n.keyframe else None) for n in command.neighbours]
        ours = self._tensor(command.ours) if command.ours else torch.empty(0, dtype=torch.uint8)
        refused = self.engine.connect(near, ours)
        return e.Connected(command.activation, _reasons(refused))

    def _half_step(self, command: c.HalfStep) -> e.HalfStepped:
        began = time.perf_counter()
        step_seconds = began - self._step_began if self._step_began else 0.0
        self._step_began = began
        figures: dict[str, float] = {}
        if command.gradient:
            gamma = self._learning_rate(command)
            backward = partial(self._gradients.backward, self.engine.flat, command.step)
            figures = {"learning_rate": gamma, **self.engine.half_step(gamma, backward)}
        self._gradients.changed(self.engine.flat.block)
        computed = time.perf_counter()
        if self._trace:
            self._trace.half_step(self.engine.flat.master, self.engine.flat.grad if command.gradient else None)
        if command.update:
            content = self._schedule.content(command.step)
            # Under privacy the duration stays secret: it tells how many records were drawn.
            step_seconds = 0.0 if self._gradients.private else step_seconds
            self.engine.encode_update(self._tensor(command.update), content=content, step_seconds=step_seconds)
        figures |= self._gradients.figures()
        figures["compute_seconds"] = computed - began
        figures["encode_seconds"] = time.perf_counter() - computed
        return e.HalfStepped(command.step, command.update, figures)

    def _mix(self, command: c.Mix) -> e.Mixed:
        began = time.perf_counter()
        # One tensor per buffer of ours, so that one decoding of our codes serves every edge.
        ours = {flow.ours: self._tensor(flow.ours) for flow in command.flows}
        flows = [
            FlowBytes(flow.peer, self._tensor(flow.theirs), ours[flow.ours], self._content(flow.ours))
            for flow in command.flows
        ]
        figures, refused = self.engine.mix_sound(flows, command.fold)
        self._gradients.changed(self.engine.flat.block)
        if self._trace:
            self._trace.mixed(command.step, self.engine.flat.master)
        figures = {**figures, "mix_seconds": time.perf_counter() - began}
        return e.Mixed(command.step, figures, _reasons(refused))

    def _content(self, update: FrameId) -> Content:
        return self._schedule.content(Step(update.activation, update.inner))

    def _freeze(self, command: c.Freeze) -> e.Frozen:
        self._end_visit()
        return e.Frozen(command.activation)

    def _end_visit(self) -> None:
        """Freeze the active block as it is; its version is that of the visit, even if the visit ended early."""
        block = self.engine.flat.block
        self.engine.freeze()
        self._engine = None
        self._checkpoints.versions.frozen(block, self._activation)

    def _learning_rate(self, command: c.HalfStep) -> float:
        ordinal, total = self._schedule.gradient_ordinal(command.step), self._schedule.gradient_steps
        settings = deca.of_block(self._settings, self.engine.flat.block.name)
        return deca.learning_rate(settings, ordinal, total)

    def _tensor(self, frame: FrameId) -> Tensor:
        return torch.frombuffer(self._frames(frame), dtype=torch.uint8)

    # --- between activations ------------------------------------------------------------------------

    def _evaluate(self, command: c.Evaluate) -> e.Evaluated:
        size = self._options.micro_batch or self._settings.batch_size
        scoring = self._leader.scores if self._leader else None
        scores = judge(self.model, self._data, size, self._options.eval_sequences, self._device, scoring)
        problem = self._keep(command.keep) if command.keep else ""
        return e.Evaluated(command.when, scores.loss, scores.count, scores.scalars, problem)

    def _keep(self, name: str) -> str:
        """Write the model as it is between two visits; returns what kept it from being written."""
        try:
            save_model(self.model, self._tokenizer, self._directory / name, "", self._beside)
        except StorageError as problem:
            return str(problem)
        return ""

    def _save(self, command: c.Save) -> e.Saved:
        if self._engine is not None:
            self._end_visit()
        folder = self._directory / command.name
        path = save_model(self.model, self._tokenizer, folder, command.alone, self._beside)
        return e.Saved(str(path))

    # --- checkpoints and what donors give -----------------------------------------------------------

    def _checkpoint(self, command: c.Checkpoint) -> e.Checkpointed | e.CheckpointFailed:
        began, position = time.perf_counter(), command.position
        assert (self._engine is not None) == (position.inner > 0), "a block is active within an activation only"
        moving = Moving(position, self._engine, place_of(self._gradients.batches), rng_states(self._device))
        try:
            folder, nbytes = self._checkpoints.write(moving, time.time())
        except (OSError, StorageError) as problem:
            # A failed checkpoint does not end training: the one before is still there, and the next may succeed.
            why = problem.strerror if isinstance(problem, OSError) else problem
            return e.CheckpointFailed(position, f"cannot write to {self._directory}: {why}")
        scalars = {"checkpoint_seconds": time.perf_counter() - began, "checkpoint_bytes": float(nbytes)}
        return e.Checkpointed(position, str(folder), scalars)

    def _adopt(self, command: c.Adopt) -> e.Adopted:
        """Adopt the versions that donors gave. All files are checked before the first is used.

        A version that this node's checkpoints hold is read from there: its copies on other nodes differ by no more than
        the consensus distance, and its files must stay as the checkpoints describe them.
        """
        if self._engine is not None:
            self._end_visit()
        known = {block.name: block for block in self._blocks}
        for delta in command.deltas:
            name = delta.version.block
            if name not in known:
                raise WireError("unknown-block", f"{delta.path} is of block {name!r}, which this model does not have")
            check_delta(Path(delta.path), self.model, known[name])
        versions = self._checkpoints.versions
        for delta in command.deltas:
            block, activation = known[delta.version.block], delta.version.activation
            self._gradients.changed(block)
            if versions.has(block, activation):
                self._checkpoints.reread(block)
            else:
                apply_delta(Path(delta.path), self.model, block, self._start.origin(self.model, block))
                versions.frozen(block, activation)
        return e.Adopted(command.position)

    def end(self) -> None:
        """Let the other ranks end, if there are any."""
        if self._leader:
            self._leader.end()

    def _block_of(self, activation: int) -> Block:
        return self._blocks[self._schedule[activation].block]


def _reasons(refused: RefusedPeers) -> tuple[e.Refused, ...]:
    return tuple(e.Refused(peer, problem.reason, str(problem)) for peer, problem in refused.items())
