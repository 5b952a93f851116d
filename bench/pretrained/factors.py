"""Low-rank updates and bottlenecks inside of a transformers model.

    Dec-LoRA      W x + 2 B (A x) in every linear layer of the stack, B = 0 at first; A and B are averaged separately
    Dec-Adapter   y + U relu(D y) behind attention and MLP of every layer, U = 0 at first; D and U are averaged
    DeCAF         as LoRA, but sum_j w_ij B_j A_j is averaged, and cut back to rank r

The head is trained beside them.
"""

from collections.abc import Iterator, Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.convergence.adapters import SCALE, Part, mix_products
from deca_node.numerics.engine import BlockEngine
from deca_node.numerics.model.blocks import decoder_layers

METHODS = ("lora", "adapter", "decaf")
OUTPUTS = ("attention.output.dense", "output.dense", "self_attn.o_proj", "mlp.down_proj")
"""The last linear layers of attention and MLP, behind which a bottleneck stands."""


class LowRank(nn.Module):
    """A linear layer with a low-rank update."""

    def __init__(self, inner: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = inner
        into, out = inner.in_features, inner.out_features
        self.A = nn.Parameter((2 * torch.rand(rank, into, generator=generator) - 1) / sqrt(into))
        self.B = nn.Parameter(torch.zeros(out, rank))

    def forward(self, x: Tensor) -> Tensor:
        """W x + 2 B A x."""
        found: Tensor = self.inner(x) + SCALE * ((x @ self.A.T) @ self.B.T)
        return found


class Bottleneck(nn.Module):
    """A linear layer with a bottleneck behind it."""

    def __init__(self, inner: nn.Linear, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = inner
        d = inner.out_features
        self.D = nn.Parameter((2 * torch.rand(width, d, generator=generator) - 1) / sqrt(d))
        self.U = nn.Parameter(torch.zeros(d, width))

    def forward(self, x: Tensor) -> Tensor:
        """y + U relu(D y), y = W x."""
        y: Tensor = self.inner(x)
        return y + torch.relu(y @ self.D.T) @ self.U.T


def add_low_rank(model: PreTrainedModel, rank: int, seed: int) -> None:
    """Put a low-rank update on every linear layer of the stack; the same first values for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for parent, name, inner in _linear(model):
        setattr(parent, name, LowRank(inner, rank, generator))


def add_bottlenecks(model: PreTrainedModel, width: int, seed: int) -> None:
    """Put a bottleneck behind attention and MLP of every layer."""
    generator = torch.Generator().manual_seed(seed)
    places = {name for name, _ in model.named_modules() if name.endswith(OUTPUTS)}
    named = {id(module): name for name, module in model.named_modules()}
    for parent, name, inner in list(_linear(model)):
        if named[id(inner)] in places:
            setattr(parent, name, Bottleneck(inner, width, generator))


def trained(model: PreTrainedModel) -> tuple[str, ...]:
    """The names of what is trained: factors, bottlenecks and the last linear layer, sorted."""
    head = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    chosen = (name for name, _ in model.named_parameters() if name.rsplit(".", 1)[1] in ("A", "B", "D", "U"))
    return tuple(sorted([*chosen, *(f"{head}.{part}" for part, _ in model.get_submodule(head).named_parameters())]))


@torch.no_grad()
def mix(engines: Sequence[BlockEngine], W: Tensor) -> None:
    """DeCAF's consensus in place: the best rank-r factors of every node's sum_j w_ij B_j A_j, and the head's mean."""
    flat = torch.stack([engine.flat.master for engine in engines])
    shapes = shapes_of(engines[0])
    mixed = W.to(flat.dtype) @ flat
    parts = [
        Part(span.name, shapes[span.name], span.start, 0.0)
        for span in engines[0].flat.spans
        if span.name.endswith((".A", ".B"))
    ]
    products = mix_products(parts, flat, W.to(flat.dtype))
    for part in parts:
        mixed[:, part.start : part.stop] = products[:, part.start : part.stop]
    for engine, row in zip(engines, mixed, strict=True):
        engine.flat.master.copy_(row)


def shapes_of(engine: BlockEngine) -> dict[str, tuple[int, int]]:
    """The shapes of the matrices that the engine trains, by name; a vector counts as one row."""
    named = zip(engine.flat.spans, engine.flat._parameters, strict=True)
    return {span.name: (p.shape[0], p.shape[1]) if p.dim() > 1 else (1, p.shape[0]) for span, p in named}


def _linear(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The linear layers of the stack, with the modules that hold them."""
    for layer in decoder_layers(model):
        for parent in list(layer.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    yield parent, name, child
