"""The production exchange beside a dense reference: every number of a block, after every command.

A :class:`~deca_node.lab.sim.fake_trainer.FakeTrainer` has the arithmetic of compressed averaging in plain lists. With a
:class:`Dense` the frames are written by the production codecs, and every flow is applied twice: by the trainer, number
by number, and by :mod:`deca_node.numerics.exchange`. After each command both must hold the same public copy, the same
difference for every edge and the same x, however late, lost, closed or reopened the edges are. A mistake that moves
both ends of an edge alike leaves the mean as it is; here it shows.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from deca_node.lab.sim.checks.audit import ELEMENTS, Vector
from deca_node.numerics.codecs.base import Codec
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies, write_keyframe
from deca_node.numerics.exchange.mix import BlockMix

CPU = torch.device("cpu")
CLOSE = 1e-5
"""The largest allowed distance between float32 and the reference. Numbers in a storm are about 1."""

STORM_CODECS = ("int8", "int4", "fp32", "bf16")


class Dense:
    """The production exchange of one node. ``codes`` are those of all frames, by serial number."""

    def __init__(self, name: str, seed: int, gamma_c: float, codes: dict[int, Tensor]) -> None:
        self._name = name
        self._codec: Codec = CODECS[STORM_CODECS[seed % len(STORM_CODECS)]]
        self._gamma_c = gamma_c
        self._codes = codes
        self._public: PublicCopies | None = None

    # --- frames -------------------------------------------------------------------------------------

    def keyframe(self, x: Vector, x0: Vector) -> tuple[Vector, Tensor]:
        """Q8(x - x0) as numbers and as codes."""
        out = torch.empty(KEYFRAME_CODEC.nbytes(ELEMENTS), dtype=torch.uint8)
        write_keyframe(_tensor(x), _slice_of(_tensor(x0)), out)
        return KEYFRAME_CODEC.decode(out, 0, ELEMENTS, CPU).tolist(), out

    def difference(self, x: Vector) -> tuple[Vector, Tensor]:
        """Q(x - x^) as numbers and as codes; the public copy moves on."""
        assert self._public is not None
        out = torch.empty(self._codec.nbytes(ELEMENTS), dtype=torch.uint8)
        self._public.difference(_tensor(x), out)
        return self._codec.decode(out, 0, ELEMENTS, CPU).tolist(), out

    # --- a visit ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A visit begins: nothing of the last one stays."""
        self._public = None

    def open(self, x0: Vector, ours: int, edges: Mapping[str, tuple[float, int]]) -> None:
        """Open edges: ``edges`` gives each peer's weight and keyframe, ``ours`` and they by serial number."""
        keyframe, origin = self._codes[ours], _slice_of(_tensor(x0))
        self._public = PublicCopies(self._codec, ELEMENTS, origin, keyframe, CPU)
        for peer, (weight, theirs) in edges.items():
            self._public.open(peer, weight, self._codes[theirs], keyframe)

    def drop(self, peer: str) -> None:
        """Drop an edge."""
        assert self._public is not None
        self._public.drop(peer)

    def mix(self, x: Vector, flows: Sequence[tuple[str, int, int]]) -> Vector:
        """x after flows, each (peer, their frame, our frame) by serial number."""
        assert self._public is not None
        codes = [FlowBytes(peer, self._codes[theirs], self._codes[ours]) for peer, theirs, ours in flows]
        self._public.check(codes)
        mixed = _tensor(x)
        BlockMix(self._public, codes, self._gamma_c).apply(mixed, 0, needs_E=False)
        return mixed.tolist()

    # --- what must hold -----------------------------------------------------------------------------

    def check(self, x_hat: Vector, differences: Mapping[str, Vector]) -> None:
        """Assert that the public copy and the differences of all edges are those of the reference."""
        if self._public is None:
            return
        self.same("its public copy", self._public.x_hat.tolist(), x_hat)
        assert set(self._public.edges) == set(differences), f"{self._name} has other edges than its reference"
        for peer, e in differences.items():
            self.same(f"its difference to {peer}", self._public.edges[peer].e.tolist(), e)

    def same(self, what: str, found: Vector, expected: Vector) -> None:
        """Assert that two vectors are equal, but for float32's own error."""
        close = all(abs(a - b) <= CLOSE * max(1.0, abs(b)) for a, b in zip(found, expected, strict=True))
        assert close, f"{self._name}: {what} is {found}, and the dense reference has {expected}"


def _tensor(x: Vector) -> Tensor:
    return torch.tensor(x, dtype=torch.float32)


def _slice_of(x0: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: x0[start:stop]
