r"""Adapters that the baselines train instead of the weights: low-rank updates and bottlenecks.

The trained parameters of a node are one vector, of which the matrices are views. So the same engine, codecs and edges
serve them as serve a block of full parameters::

    Dec-LoRA      W + 2 B A per linear layer, B = 0 at first; A and B are averaged separately
    Dec-Adapter   y + U relu(D y) after attention and after the MLP, U = 0 at first; D and U are averaged
    DeCAF         as LoRA, but the products are averaged: sum_j w_ij B_j A_j, cut back to rank r

DeCAF needs no matrix of the layer's size. With the factors stacked, P = [w_i1 B_1 .. w_id B_d] [A_1; ..; A_d], QR of
both sides leaves an SVD of a matrix as wide as the stack (Saadati et al., DeCAF, 2025).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.convergence.stack import ADAPTED, Weights

SCALE = 2.0
"""alpha / r of LoRA, at its usual value."""


@dataclass(frozen=True)
class Part:
    """One matrix of the vector: elements [start, start + numel), and the spread of its first values (0: zeros)."""

    name: str
    shape: tuple[int, int]
    start: int
    spread: float

    @property
    def stop(self) -> int:
        return self.start + prod(self.shape)

    def view(self, flat: Tensor) -> Tensor:
        """[n, *shape] of ``flat`` [n, elements]."""
        return flat[:, self.start : self.stop].view(len(flat), *self.shape)


def first_values(parts: Sequence[Part], seed: int) -> Tensor:
    """The first values of all nodes, [elements]: uniform within each part's spread, drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([(2 * torch.rand(prod(p.shape), generator=generator) - 1) * p.spread for p in parts])


HEAD = "score.weight"
"""The head of a classifier, as a difference to the start. It is new, so it is trained beside any adapter."""


def low_rank_parts(model: PreTrainedModel, rank: int) -> tuple[Part, ...]:
    """A [r, in] and B [out, r] of every linear layer, in this order, and then the head, if there is one."""
    shapes = []
    for name, weight in model.named_parameters():
        if name.split(".")[-2] in ADAPTED:
            out, into = weight.shape
            shapes += [(f"{name}:A", (rank, into), 1 / sqrt(into)), (f"{name}:B", (out, rank), 0.0)]
    return tuple(_placed([*shapes, *_head(model)]))


def bottleneck_parts(model: PreTrainedModel, width: int) -> tuple[Part, ...]:
    """D [width, d] and U [d, width] after attention and MLP of every layer."""
    d, shapes = model.config.hidden_size, []
    for layer in range(model.config.num_hidden_layers):
        for place in ("self_attn", "mlp"):
            name = f"model.layers.{layer}.{place}"
            shapes += [(f"{name}.adapter_down", (width, d), 1 / sqrt(d)), (f"{name}.adapter_up", (d, width), 0.0)]
    return tuple(_placed([*shapes, *_head(model)]))


def with_low_rank(base: Weights, parts: Sequence[Part], flat: Tensor) -> Weights:
    """The weights [n, out, in] with every node's update added; ``base`` has a leading axis of 1."""
    weights = _with_head(base, parts, flat)
    for a, b in _pairs(parts):
        name = a.name.removesuffix(":A")
        weights[name] = torch.baddbmm(weights[name], b.view(flat), a.view(flat), alpha=SCALE)
    return weights


def with_bottlenecks(base: Weights, parts: Sequence[Part], flat: Tensor) -> Weights:
    """The weights, with every node's adapters."""
    weights = _with_head(base, parts, flat)
    return weights | {part.name: part.view(flat) for part in parts if part.name != HEAD}


def mix_products(parts: Sequence[Part], flat: Tensor, W: Tensor) -> Tensor:
    """DeCAF's consensus: each node's factors of the best rank-r approximation of sum_j w_ij B_j A_j.

    ``flat`` [n, elements], ``W`` [n, n] doubly stochastic. The factors share the singular values, B = U sqrt(s) and A =
    sqrt(s) V^T, since a truncated SVD does not tell to which factor they belong.
    """
    mixed = flat.clone()
    for head in (part for part in parts if part.name == HEAD):
        mixed[:, head.start : head.stop] = W @ flat[:, head.start : head.stop]
    for a, b in _pairs(parts):
        A, B = a.view(flat), b.view(flat)
        for i, row in enumerate(W):
            near = row.nonzero()[:, 0]
            new_b, new_a = truncated([row[j] * B[j] for j in near], [A[j] for j in near], a.shape[0])
            mixed[i, b.start : b.stop], mixed[i, a.start : a.stop] = new_b.reshape(-1), new_a.reshape(-1)
    return mixed


def truncated(left: Sequence[Tensor], right: Sequence[Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """B [out, rank] and A [rank, in], the best rank-``rank`` approximation of sum_j left_j right_j, by QR of the
    stacked factors and the SVD of the matrix between them."""
    q_left, r_left = torch.linalg.qr(torch.cat(list(left), dim=1))
    q_right, r_right = torch.linalg.qr(torch.cat(list(right), dim=0).T)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T)
    root = s[:rank].sqrt()
    return (q_left @ u[:, :rank]) * root, root[:, None] * (vh[:rank] @ q_right.T)


def _pairs(parts: Sequence[Part]) -> Iterator[tuple[Part, Part]]:
    factors = [part for part in parts if part.name != HEAD]
    return zip(factors[::2], factors[1::2], strict=True)


def _head(model: PreTrainedModel) -> list[tuple[str, tuple[int, int], float]]:
    return [(name, tuple(weight.shape), 0.0) for name, weight in model.named_parameters() if name == HEAD]


def _with_head(base: Weights, parts: Sequence[Part], flat: Tensor) -> dict[str, Tensor]:
    weights = {name: w.expand(len(flat), *w.shape[1:]) for name, w in base.items()}
    return weights | {part.name: base[HEAD] + part.view(flat) for part in parts if part.name == HEAD}


def _placed(shapes: Sequence[tuple[str, tuple[int, int], float]]) -> Iterator[Part]:
    start = 0
    for name, shape, spread in shapes:
        yield Part(name, shape, start, spread)
        start += prod(shape)
