"""Cuts a model's parameters into blocks, and holds the active block as one flat vector.

A model is a stack: embeddings at the bottom, equal layers above them, a norm and a head on top. Blocks are cut along
the stack::

    embedding      everything that turns tokens and positions into vectors (with the head, if it is tied)
    layers.0-1     block_layers layers each
    layers.2-3
    head           final norm and head; part of the last layers' block if the head is tied and only a norm is left;
                   in a classifier everything above the layers: norm or pooler, and the layer that gives the labels

Parameters are told apart by identity, never by the text of their names. While a block is active its parameters are
one float32 vector, the master. They lie in it in the order of their names. All nodes share that order, since updates
are slices of the vector. Float32 parameters are views into the master. Parameters of another dtype are copies of it,
which ``publish`` renews.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deca_node.numerics.model.reach import unreached
from deca_node.protocol.errors import ModelError

Outcome = TypeVar("Outcome")

Origin = Callable[[int, int], Tensor]
"""x0, a block's values in the run's starting model: ``origin(start, stop)`` returns elements [start, stop) of the
block's vector as float32 [stop - start]."""

GATHER_ELEMENTS = 1 << 20
"""Elements of a parameter's gradient that are added to the block's gradient at a time."""


@dataclass(frozen=True)
class Block:
    """Parameters that are trained together: their names, sorted, and the number of their elements."""

    name: str
    parameters: tuple[str, ...]
    elements: int


@dataclass(frozen=True)
class Span:
    """The place of a parameter in its block's vector: elements [start, stop)."""

    name: str
    start: int
    stop: int


def partition(model: nn.Module, block_layers: int) -> tuple[Block, ...]:
    """Cut all parameters that text reaches into disjoint blocks, bottom up, with ``block_layers`` layers each.

    Raises ModelError if the model has no layers.
    """
    layers = decoder_layers(model)
    frozen = unreached(model)
    layer_ids = {id(p) for layer in layers for p in layer.parameters()}
    embedding = _embedding_parameters(model, layer_ids)
    head = _own_parameters(_part(model, "get_output_embeddings"))
    tied = any(id(p) in {id(q) for q in embedding} for p in head)
    groups: list[tuple[str, list[nn.Parameter]]] = [("embedding", embedding)]
    for first in range(0, len(layers), block_layers):
        last = min(first + block_layers, len(layers)) - 1
        name = f"layers.{first}-{last}" if last > first else f"layers.{first}"
        groups.append((name, [p for layer in layers[first : last + 1] for p in layer.parameters()]))
    claimed = {id(p) for _, parameters in groups for p in parameters} | frozen
    rest = [p for p in model.parameters() if id(p) not in claimed]
    if tied:
        groups[-1][1].extend(rest)
    else:
        groups.append(("head", rest))
    return tuple(_named(model, groups, frozen))


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The stack of layers: of all outermost module lists with as many modules as the config has layers, the list that
    holds the most parameters. Raises ModelError if there is none."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder; only a single stack of layers can be cut")
    depth = _depth(config)
    frozen = unreached(model)
    # Towers for pictures may have as many layers, and larger ones.
    stacks = [found for found in _outermost_lists(model) if any(id(p) not in frozen for p in found.parameters())]
    lists = [found for found in stacks if depth is None or len(found) == depth]
    # LongCat Flash counts every layer twice, since it attends twice, and has the number of layers beside.
    lists = lists or [found for found in stacks if len(found) == getattr(config, "num_layers", None)]
    if not lists:
        raise ModelError(f"{type(model).__name__} {_why_not(config, stacks, depth)}")
    stack: nn.ModuleList = max(lists, key=_elements)
    return list(stack)


def gathered_units(model: nn.Module) -> list[nn.Module]:
    """The modules that a model which is sharded over ranks gathers one by one: its layers, and a table of embeddings
    that is not tied to the head. Everything else is gathered together, for the whole of a pass."""
    embedding = _part(model, "get_input_embeddings")
    tied = {id(p) for p in _own_parameters(_part(model, "get_output_embeddings"))}
    alone = isinstance(embedding, nn.Embedding) and not any(id(p) in tied for p in embedding.parameters())
    return [*decoder_layers(model), *([embedding] if alone and embedding is not None else [])]


def _why_not(config: object, stacks: Sequence[nn.ModuleList], depth: int | None) -> str:
    groups = getattr(config, "num_hidden_groups", None)
    if depth and groups:
        shared = f"the weights of {groups} layer(s) are those of all {depth} layers"
        return f"has no layers that could be trained in blocks: {shared}"
    looked = "" if depth is None else f" (looked for a list of {depth} layers, and found {_lengths(stacks)})"
    return f"has no layers that could be trained in blocks{looked}"


def _lengths(stacks: Sequence[nn.ModuleList]) -> str:
    return ", ".join(f"one of {len(stack)}" for stack in stacks) or "none"


def spans(model: nn.Module, block: Block) -> tuple[Span, ...]:
    """The place of each of the block's parameters in its vector."""
    parameters = dict(model.named_parameters())
    return _one_after_another(block.parameters, [parameters[name].numel() for name in block.parameters])


def _one_after_another(names: Sequence[str], sizes: Sequence[int]) -> tuple[Span, ...]:
    stops = list(accumulate(sizes))
    return tuple(Span(*each) for each in zip(names, [0, *stops], stops, strict=False))


def origin_from(layout: Sequence[Span], tensor: Callable[[str], Tensor]) -> Origin:
    """An origin that reads x0 tensor by tensor.

    ``tensor(name)`` returns one parameter of the starting checkpoint in any dtype and shape. The last tensor is kept,
    so that reading from front to back reads each tensor once.
    """
    kept: tuple[str, Tensor] | None = None

    def read(span: Span) -> Tensor:
        nonlocal kept
        if kept is None or kept[0] != span.name:
            kept = (span.name, tensor(span.name).reshape(-1))
        return kept[1]

    def origin(start: int, stop: int) -> Tensor:
        inside = [span for span in layout if span.start < stop and start < span.stop]
        parts = [read(s)[max(start, s.start) - s.start : min(stop, s.stop) - s.start].float() for s in inside]
        return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else torch.empty(0)

    return origin


class BlockGradient:
    """The gradient of one block: float32 [elements] on the parameters' device, ``grad``.

    The first ``collect`` allocates it, so a block that is only mixed never has one. ``held`` says where each
    parameter's part that this process holds lies in it: as ``spans``, unless the model is sharded.
    """

    def __init__(self, model: nn.Module, block: Block) -> None:
        """Thaw the block: afterwards only its parameters require a gradient."""
        named = dict(model.named_parameters())
        self.block = block
        self.spans = spans(model, block)
        self._parameters = [named[span.name] for span in self.spans]
        self._device = _common_device(block, self._parameters)
        self.grad: Tensor | None = None
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        self.held = _one_after_another(block.parameters, [self.here(p).numel() for p in self._parameters])
        self._hooks = [self._gather(s, p) for s, p in zip(self.held, self._parameters, strict=True)]

    def here(self, tensor: Tensor) -> Tensor:
        """What this process holds of a parameter or of its gradient: all of it, unless the model is sharded."""
        return tensor

    def collect(self, backward: Callable[[], Outcome]) -> Outcome:
        """Run forward and backward passes; ``grad`` then holds the sum of all their gradients.

        Each parameter's own gradient is added in float32 and freed as soon as it is complete. So micro-batches
        accumulate without rounding to the model's dtype, and only one tensor's gradient is in memory at a time.
        """
        if self.grad is None:
            elements = self.held[-1].stop
            self.grad = torch.zeros(elements, dtype=torch.float32, device=self._device)
        else:
            self.grad.zero_()
        return backward()

    def freeze(self) -> None:
        """Free the gradient; nothing requires one any more."""
        for handle in self._hooks:
            handle.remove()
        for parameter in self._parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        self._hooks, self._parameters, self.grad = [], [], None

    def _gather(self, span: Span, parameter: nn.Parameter) -> RemovableHandle:
        """Thaw a parameter, and add its gradient to the block's from now on."""
        parameter.requires_grad_(True)

        def gather(finished: Tensor) -> None:
            assert self.grad is not None, "a backward pass outside of collect"
            assert finished.grad is not None
            # In pieces: adding a tensor of another dtype makes a float32 copy of it first.
            for total, part in zip(
                self.grad[span.start : span.stop].split(GATHER_ELEMENTS),
                self.here(finished.grad).reshape(-1).split(GATHER_ELEMENTS),
                strict=True,
            ):
                total.add_(part)
            finished.grad = None

        return parameter.register_post_accumulate_grad_hook(gather)


class FlatBlock(BlockGradient):
    """One active block: its thawed parameters, their gradient and their ``master``, float32 [elements] as well."""

    @torch.no_grad()
    def __init__(self, model: nn.Module, block: Block) -> None:
        """Thaw the block, and copy its parameters to the master."""
        super().__init__(model, block)
        self.master = torch.empty(block.elements, dtype=torch.float32, device=self._device)
        for span, parameter in zip(self.spans, self._parameters, strict=True):
            view = self.master[span.start : span.stop].view(parameter.shape)
            view.copy_(parameter)
            if parameter.dtype == torch.float32:
                parameter.data = view

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the master into the parameters that are not float32; the others are views of it."""
        for span, parameter in zip(self.spans, self._parameters, strict=True):
            if parameter.dtype != torch.float32:
                parameter.copy_(self.master[span.start : span.stop].view_as(parameter))

    @torch.no_grad()
    def freeze(self) -> None:
        """Give every parameter its own storage again, with the same values, and free master and gradient."""
        self.publish()
        parameters = self._parameters
        super().freeze()
        for parameter in parameters:
            if parameter.dtype == torch.float32:
                parameter.data = parameter.detach().clone()
        self.master = torch.empty(0)


def _outermost_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _outermost_lists(child)


def _elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _depth(config: object) -> int | None:
    """The number of layers in the language model's config; None if it has none."""
    text = config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config
    depth = getattr(text, "num_hidden_layers", None)
    return int(depth) if depth is not None else None


def _embedding_parameters(model: nn.Module, layer_ids: set[int]) -> list[nn.Parameter]:
    """Parameters outside of the layers that belong to embeddings or are named after them, such as a norm of the
    embeddings. An output head is among them only if it is tied."""
    inputs = _part(model, "get_input_embeddings")
    head = _part(model, "get_output_embeddings")
    found = {id(p): p for p in _own_parameters(inputs)}
    for name, module in model.named_modules():
        if module is head or not (isinstance(module, nn.Embedding) or "emb" in name.lower()):
            continue
        found |= {id(p): p for p in module.parameters(recurse=False) if id(p) not in layer_ids}
    return list(found.values())


def _part(model: nn.Module, getter: str) -> nn.Module | None:
    """The result of a model's ``get_input_embeddings`` or the like; None if it has no such method or module."""
    method = getattr(model, getter, None)
    try:
        found = method() if method is not None else None
    except NotImplementedError:  # as of architectures without a table of tokens
        return None
    return found if isinstance(found, nn.Module) else None  # Perceiver names its latents


def _own_parameters(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else list(module.parameters(recurse=False))


def _named(model: nn.Module, groups: Iterable[tuple[str, list[nn.Parameter]]], frozen: set[int]) -> Iterator[Block]:
    """A block for each group that is not empty; a parameter in several groups belongs to the first, and a frozen one to
    none."""
    names = {id(p): name for name, p in model.named_parameters() if id(p) not in frozen}
    for block_name, parameters in groups:
        own = {names.pop(id(p)): p.numel() for p in parameters if id(p) in names}
        if own:
            yield Block(block_name, tuple(sorted(own)), sum(own.values()))


def _common_device(block: Block, parameters: Sequence[nn.Parameter]) -> torch.device:
    devices = {parameter.device for parameter in parameters}
    if len(devices) != 1:
        raise ModelError(f"block {block.name} is spread over {', '.join(sorted(map(str, devices)))}; it must be on one")
    return devices.pop()
