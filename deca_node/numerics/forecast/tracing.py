"""How much memory a model's activations take, found out by a step on torch's meta device.

There tensors have shapes and no storage, so a step of any model takes no memory and seconds at most. Every storage that
torch would allocate is counted while it is alive, layer by layer::

    P    what a layer keeps for a backward pass that only goes through it to a block below
    A    what a layer keeps whose own parameters are trained
    top  the most that is alive at a time beside all P: logits, their gradient, and what a layer needs for a moment

A block's peak is the P of all layers from its own upward, A - P of its own layers, and the top. Each of them is a
polynomial of the length: of second degree where attention keeps a weight for every pair of tokens.

Few layers are enough: two of each kind. Fused attention is replaced by what it keeps, since torch computes it in
another way on the meta device.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as assumptions
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from deca_node.numerics.forecast.guesses import Answers, Even, experts_of
from deca_node.numerics.model.blocks import decoder_layers
from deca_node.numerics.model.classifier import CLASSIFIER
from deca_node.numerics.model.quiet import quiet
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.case import DTYPE_BYTES, BlockShape, Curve, ModelShape

META = torch.device("meta")
STEP, LENGTH_MAX = 64, 512
"""Lengths are multiples of the first, since some layers work in chunks of it; a longer run is extrapolated."""
ALIKE = 2
"""How many layers of a kind are traced."""
SEQUENCES = 2
"""How many are traced at a time: torch multiplies matrices of one sequence in other ways than those of several."""


Mask = Callable[[PreTrainedModel, int], Mapping[str, Tensor]]
"""The masks that a model is called with, for sequences of a length."""


@dataclass(frozen=True)
class Trace:
    """``kept`` and ``own`` are P and A for each layer; ``inputs`` is the input of a layer, which is all that stays of
    it with gradient checkpointing."""

    kept: tuple[Curve, ...]
    own: tuple[Curve, ...]
    top: Curve
    inputs: Curve

    def into(self, shape: ModelShape) -> ModelShape:
        """The shape with the curves of its blocks."""
        return replace(shape, blocks=tuple(map(self._block, shape.blocks)))

    def _block(self, block: BlockShape) -> BlockShape:
        first = len(self.kept) - block.layers_from
        own = range(first, first + block.layers)
        crossed = [self.own[k] if k in own else self.kept[k] for k in range(first, len(self.kept))]
        again = [self.inputs] * len(crossed) + sorted(self.own, key=lambda curve: curve.at(1, LENGTH_MAX))[-1:]
        return replace(
            block,
            activations=Curve.sum([*crossed, self.top]),
            checkpointed=Curve.sum([*(again if crossed else ()), self.top]),
        )


def trace(model: PreTrainedModel, run: RunSettings, *, attention: str, device: str) -> Trace | None:
    """Trace a model on the meta device; it is as before afterwards. None if one of its operations needs numbers.

    ``attention`` is the node's setting, ``device`` the kind of device: on a CPU attention with dropout is not fused.
    """
    for few, truth, mask in product((True, False), (None, False, True), (_mask, _flat_mask, _no_mask)):
        # An architecture may ask for a value, which there is none of, or count its layers, each in its own way.
        with contextlib.suppress(Exception), _answering(model, truth):
            return _trace(model, run, attention, mask, fused=device != "cpu", few=few)
    return None


@contextmanager
def _answering(model: PreTrainedModel, truth: bool | None) -> Iterator[None]:
    """Operations that need numbers get answers; with None they fail."""
    with ExitStack() as stack:
        if truth is not None:
            # Where a tensor is indexed by a mask: torch's own answer, and the largest there is.
            stack.enter_context(assumptions.patch(meta_nonzero_assume_all_nonzero=True))  # type: ignore[attr-defined]
            stack.enter_context(Even())
            stack.enter_context(Answers(experts_of(model.config.get_text_config()), truth=truth))
        yield


def _trace(
    model: PreTrainedModel, run: RunSettings, attention: str, mask: "Mask", *, fused: bool, few: bool = True
) -> Trace:
    longest = max(min(run.sequence_length, LENGTH_MAX) // STEP, 3) * STEP
    lengths = (longest // STEP // 3 * STEP, 2 * (longest // STEP // 3) * STEP, longest)
    with quiet(), _ready(model, run.dtype, attention, few) as layers:
        steps = [_Step(model, [layer for _, layer in layers], length, mask, fused) for length in lengths]
    kinds = [kind for kind, _ in layers]
    curve = lambda values: Curve.through(lengths, [value / SEQUENCES for value in values])  # noqa: E731
    kept = [curve([step.kept[k] for step in steps]) for k in range(len(layers))]
    own = [curve([step.own[k] for step in steps]) for k in range(len(layers))]
    every = _kinds(model)
    mean = lambda curves, kind: Curve.mean([c for c, k in zip(curves, kinds, strict=True) if k == kind])  # noqa: E731
    return Trace(
        tuple(mean(kept, kind) for kind in every),
        tuple(mean(own, kind) for kind in every),
        curve([step.top for step in steps]),
        curve([step.input for step in steps]),
    )


def with_activations(shape: ModelShape, traced: Trace | None) -> ModelShape:
    """The shape with what a trace has found, if there is one."""
    return traced.into(shape) if traced else shape


# --- a step -----------------------------------------------------------------------------------------


class _Step:
    """Sequences of a length: a forward pass with all layers trained, and both passes with none of them trained."""

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[nn.Module], length: int, mask: Mask, fused: bool
    ) -> None:
        self._model, self._layers, self._length, self._mask, self._fused = model, layers, length, mask, fused
        self.own = self._traced(trained=True).grown(len(layers))
        through = self._traced(trained=False)
        self.kept = through.grown(len(layers))
        self.top = through.peak - sum(self.kept)
        self.input = through.input

    def _traced(self, *, trained: bool) -> "_Alive":
        model, layers = self._model, self._layers
        model.requires_grad_(False)
        for layer in layers:
            layer.requires_grad_(trained)
        alive = _Alive(model)
        with ExitStack() as stack:
            stack.callback(_embedding(model).register_forward_hook(_leaf).remove)
            for k, layer in enumerate(layers):
                stack.enter_context(alive.watching(k, layer))
            stack.enter_context(_Kernels(fused=self._fused))
            stack.enter_context(alive)
            loss = _loss(model, self._length, self._mask)
            if not trained:
                loss.backward()
        return alive


def _embedding(model: PreTrainedModel) -> nn.Module:
    """The table of tokens: the first table where the architecture does not name it."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return next(module for module in model.modules() if isinstance(module, nn.Embedding))


def _leaf(_module: nn.Module, _given: Any, out: Any) -> Any:
    """Vectors of tokens, as something that a backward pass ends at; beside them a module may return more."""
    if isinstance(out, tuple):
        return _leaf(_module, _given, out[0]), *out[1:]
    return out.detach().requires_grad_() * 1


def _loss(model: PreTrainedModel, length: int, mask: Mask) -> Tensor:
    ids = torch.zeros(SEQUENCES, length, dtype=torch.long, device=META)
    if type(model).__name__.endswith(CLASSIFIER):
        labels = torch.zeros(SEQUENCES, dtype=torch.long, device=META)
        return cross_entropy(model(input_ids=ids, **mask(model, length)).logits.float(), labels)
    logits = model(input_ids=ids, use_cache=False, **mask(model, length)).logits[:, :-1].float()
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="sum")


def _mask(model: PreTrainedModel, length: int) -> Mapping[str, Tensor]:
    """The mask that keeps records apart, in a form that no architecture looks into."""
    eager = getattr(model.config.get_text_config(), "_attn_implementation", None) == "eager"
    dtype = model.dtype if eager else torch.bool
    return {"attention_mask": torch.ones(SEQUENCES, 1, length, length, dtype=dtype, device=META)}


def _flat_mask(_model: PreTrainedModel, length: int) -> Mapping[str, Tensor]:
    """A mask of padding, for architectures that take no other."""
    return {"attention_mask": torch.ones(SEQUENCES, length, dtype=torch.long, device=META)}


def _no_mask(_model: PreTrainedModel, _length: int) -> Mapping[str, Tensor]:
    return {}


class _Alive(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, but for the model's own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = self.input = 0
        self._known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._grown: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage: Any) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += nbytes
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._end, key, nbytes)

    def _end(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self.now -= nbytes

    @contextmanager
    def watching(self, k: int, layer: nn.Module) -> Iterator[None]:
        """Notice what layer k keeps. Its ``forward`` is replaced, since some architectures call no hooks."""
        forward: Any = layer.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            before = self.now
            given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point()]
            self.input = given[0].nbytes if given else 0
            out = forward(*args, **kwargs)
            self._grown[k] = self.now - before
            return out

        layer.forward = watched
        try:
            yield
        finally:
            del layer.forward

    def grown(self, layers: int) -> list[int]:
        """What each of so many layers has kept: nothing where text does not go through it."""
        return [self._grown.get(k, 0) for k in range(layers)]


class _Kernels(TorchFunctionMode):
    """Kernels that the meta device does not have, by what they keep.

    Fused attention keeps its inputs, the output, a number per row, and the mask as numbers. Grouped products of experts
    keep their inputs.
    """

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self._fused = fused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch._grouped_mm, getattr(nn.functional, "grouped_mm", None)):
            return _Grouped.apply(*args[:2])
        if func is not scaled_dot_product_attention or not self._takes(args[0], args[1], args[2], kwargs):
            return func(*args, **kwargs)
        query, key, value = args[:3]
        mask = kwargs.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.empty(mask.shape, dtype=query.dtype, device=META)
        return _Kernel.apply(query, key, value, mask)

    def _takes(self, query: Tensor, key: Tensor, value: Tensor, kwargs: Mapping[str, Any]) -> bool:
        """Whether a fused kernel computes this. That of a CPU has no dropout, and needs heads of one kind."""
        alike = query.shape[-1] == value.shape[-1] and (kwargs.get("enable_gqa") or query.shape[1] == key.shape[1])
        return self._fused or (not kwargs.get("dropout_p") and alike)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, experts: Tensor) -> Tensor:
        ctx.save_for_backward(rows, experts)
        return rows.new_empty(rows.shape[0], experts.shape[-1])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return tuple(
            torch.empty_like(tensor) if wanted else None
            for tensor, wanted in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=True)
        )


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, rows, mask)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        query, key, value, *_rest = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


# --- the model, made ready --------------------------------------------------------------------------

Kind = tuple[Any, ...]


@contextmanager
def _ready(model: PreTrainedModel, dtype: str, attention: str, few: bool) -> Iterator[list[tuple[Kind, nn.Module]]]:
    """The model in the run's precision, in training, with all or few of its layers: these, and the kind of each."""
    own, training = model.dtype, model.training
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    layers, kinds = decoder_layers(model), _kinds(model)
    stack = next(each for each in model.modules() if isinstance(each, nn.ModuleList) and list(each) == layers)
    count = _enough(kinds) if few else len(kinds)
    try:
        if dtype in DTYPE_BYTES:
            model.to(getattr(torch, dtype))
        if attention != "auto":
            model.set_attn_implementation("sdpa" if attention.startswith("flash") else attention)
        stack._modules = {str(k): layer for k, layer in enumerate(layers[:count])}
        model.train()
        yield list(zip(kinds[:count], layers[:count], strict=True))
    finally:
        stack._modules = {str(k): layer for k, layer in enumerate(layers)}
        model.train(training)
        for parameter, wanted in zip(model.parameters(), frozen, strict=True):
            parameter.requires_grad_(wanted)
        model.to(own)


def _kinds(model: PreTrainedModel) -> list[Kind]:
    """What makes layers alike: their class, their shapes, and the name that the config gives to each."""
    layers = decoder_layers(model)
    types = getattr(model.config.get_text_config(), "layer_types", None)
    names = types if isinstance(types, list | tuple) and len(types) == len(layers) else [None] * len(layers)
    shapes = [tuple(tuple(p.shape) for p in layer.parameters()) for layer in layers]
    return [(type(layer), shape, name) for layer, shape, name in zip(layers, shapes, names, strict=True)]


def _enough(kinds: Sequence[Kind]) -> int:
    """How many layers from the first on hold enough of every kind."""
    wanted = {kind: min(kinds.count(kind), ALIKE) for kind in set(kinds)}
    return next(k for k in range(1, len(kinds) + 1) if all(kinds[:k].count(kind) >= wanted[kind] for kind in wanted))
