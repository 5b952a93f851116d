r"""Baselines with an outer step: every node trains alone for a number of steps, and then meets others.

NoLoCo (Kolehmainen et al., arXiv 2506.10911) draws pairs anew for every outer step. With phi the weights after the last
outer step, theta those after the inner steps and n = 2 nodes in a group::

    delta <- alpha delta + beta / n sum_j (theta_j - phi_j) - gamma (phi_i - 1/n sum_j phi_j)        phi <- phi + delta

SparseLoCo (Sarfi et al., arXiv 2508.15706) sends the largest elements of what error feedback has collected::

    e <- beta e + (phi - theta)       q = Q2(Top-k(e)) in every chunk       e <- e - q       phi <- phi - alpha mean q

It has no graph in the paper: all workers hear each other. Here the mean is over a node and its neighbours, with the
weights W of the other methods. ``tests/bench/test_pretrained.py`` checks both steps against the formulas.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deca_node.numerics.engine import BlockEngine
from deca_node.protocol.agreed.topology import Graph
from deca_node.protocol.agreed.weights import matrix

OWN = ("every", "outer_rate", "outer_momentum", "outer_pull", "share")
"""``every``: inner steps between outer steps. ``share`` is the share of elements that SparseLoCo sends."""

CHUNK = 4096
"""Elements from which SparseLoCo chooses the largest."""

INDEX_BITS = 12
VALUE_BITS = 2


class NoLoCo:
    """The outer steps of all nodes. ``vectors`` is how many vectors of the model's size a node keeps for them."""

    vectors = 2

    def __init__(self, engines: Sequence[BlockEngine], graph: Graph, own: Mapping[str, Any], seed: int) -> None:
        del graph  # Any two nodes may meet.
        self._engines, self._seed = engines, seed
        self._alpha, self._beta, self._gamma = own["outer_momentum"], own["outer_rate"], own["outer_pull"]
        self._phi = [engine.flat.master.clone() for engine in engines]
        self._delta = [torch.zeros_like(phi) for phi in self._phi]

    @torch.no_grad()
    def __call__(self, number: int) -> int:
        """Outer step ``number``; returns the bytes that all nodes sent: phi and theta - phi in float32."""
        for pair in pairs(len(self._engines), self._seed, number):
            phis = [self._phi[i] for i in pair]
            changes = [self._engines[i].flat.master - self._phi[i] for i in pair]
            mean_phi, mean_change = mean(phis), mean(changes)
            for i in pair:
                step = noloco_step(
                    self._delta[i], self._phi[i], mean_phi, mean_change, self._alpha, self._beta, self._gamma
                )
                self._delta[i] = step
            for i in pair:
                self._phi[i] = self._phi[i] + self._delta[i]
                self._engines[i].flat.master.copy_(self._phi[i])
        return len(self._engines) * 2 * 4 * self._phi[0].numel()


def noloco_step(
    delta: Tensor, phi: Tensor, mean_phi: Tensor, mean_change: Tensor, alpha: float, beta: float, gamma: float
) -> Tensor:
    """The new delta of one node, [elements]."""
    return alpha * delta + beta * mean_change - gamma * (phi - mean_phi)


def pairs(nodes: int, seed: int, number: int) -> list[tuple[int, ...]]:
    """The nodes in pairs, drawn from the seed and the outer step's number. Of an odd number one stays alone."""
    order = list(range(nodes))
    random.Random(f"{seed}:outer:{number}").shuffle(order)
    return [tuple(order[k : k + 2]) for k in range(0, nodes, 2)]


def mean(vectors: Sequence[Tensor]) -> Tensor:
    """The mean of vectors, [elements]."""
    return torch.stack(list(vectors)).mean(0)


class SparseLoCo:
    """The outer steps of all nodes."""

    vectors = 2

    def __init__(self, engines: Sequence[BlockEngine], graph: Graph, own: Mapping[str, Any], seed: int) -> None:
        del seed
        self._engines, self._W = engines, matrix(graph)
        self._degree = sum(map(len, graph.values()))
        self._alpha, self._beta, self._share = own["outer_rate"], own["outer_momentum"], own["share"]
        self._phi = [engine.flat.master.clone() for engine in engines]
        self._errors = [torch.zeros_like(phi) for phi in self._phi]

    @torch.no_grad()
    def __call__(self, number: int) -> int:
        """Outer step ``number``; returns the bytes that all nodes sent to their neighbours."""
        del number
        sent = []
        for engine, phi, error in zip(self._engines, self._phi, self._errors, strict=True):
            error.mul_(self._beta).add_(phi - engine.flat.master)
            sent.append(sparse(error, self._share))
            error.sub_(sent[-1])
        for i, (engine, phi) in enumerate(zip(self._engines, self._phi, strict=True)):
            for j, q in enumerate(sent):
                if self._W[i][j]:
                    phi.sub_(q, alpha=self._alpha * self._W[i][j])
            engine.flat.master.copy_(phi)
        return self._degree * sparse_bytes(len(self._phi[0]), self._share)


def sparse(error: Tensor, share: float) -> Tensor:
    """The largest ``share`` of every chunk in 2 bits, [elements]: a sign, and one of two sizes, which are the means of
    the smaller and of the larger half of what is sent of the chunk."""
    count = max(1, round(CHUNK * share))
    rows = torch.nn.functional.pad(error, (0, -len(error) % CHUNK)).view(-1, CHUNK)
    places = rows.abs().topk(count, dim=1).indices  # in falling order
    values = rows.gather(1, places)
    half = max(1, count // 2)
    sizes = torch.cat(
        [
            part.abs().mean(1, keepdim=True).expand_as(part)
            for part in (values[:, :half], values[:, half:])
            if part.numel()
        ],
        dim=1,
    )
    return torch.zeros_like(rows).scatter_(1, places, values.sign() * sizes).view(-1)[: len(error)]


def sparse_bytes(elements: int, share: float) -> int:
    """Bytes of one update: 12 bits for a place in its chunk and 2 for a value, and two float32 sizes per chunk."""
    chunks, count = -(-elements // CHUNK), max(1, round(CHUNK * share))
    return chunks * (8 + -(-count * (INDEX_BITS + VALUE_BITS) // 8))


OUTER: Mapping[str, Callable[..., Any]] = {"noloco": NoLoCo, "sparseloco": SparseLoCo}
