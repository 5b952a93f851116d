"""Many nodes at once as rows of one matrix: the schedule, graphs, codecs and equations of a run, with artificial
gradients.

Every node is pulled to its own point, c_i = common + private, both standard normal, with noise of the same size on
every gradient. So the data of nodes differ about as much as they have in common. A row has a whole number of the
codecs' groups, so encoding all rows at once equals encoding each alone. The effects of a network (delays, losses) are
left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.codecs.base import Codec
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.deca import Counts, Hyper, Moments
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.topology import Graph, graph
from deca_node.protocol.agreed.weights import metropolis

ELEMENTS = 256
BLOCKS = 2
KEYFRAME = CODECS["int8"]


@dataclass(frozen=True)
class Agreement:
    """Consensus distances (RMS of x_i - mean over nodes and elements) in step sizes: at the end of the gradients of the
    last visit, after the flush of that visit, and after the final flush. ``moved`` is the distance of the mean from its
    start, in the same unit. ``left_per_mix`` is the share that a mix of the final flush left, as a geometric mean."""

    trained: float
    flushed: float
    ended: float
    moved: float
    left_per_mix: float


def weights(found: Graph) -> Tensor:
    """W over the sorted names, float64 [n, n]: Metropolis weights, and the rest of each row to one on the diagonal."""
    numbers = {name: number for number, name in enumerate(sorted(found))}
    w = torch.zeros(len(numbers), len(numbers), dtype=torch.float64)
    for name, near in found.items():
        for peer in near:
            w[numbers[name], numbers[peer]] = metropolis(len(near), len(found[peer]))
    return w + torch.diag(1.0 - w.sum(dim=1))


def left_per_mix(w: Tensor, flow_share: float) -> float:
    """max(|lambda_2|, |lambda_n|) of (1 - gamma_c) I + gamma_c W, from all its eigenvalues."""
    values = torch.linalg.eigvalsh((1.0 - flow_share) * torch.eye(len(w), dtype=w.dtype) + flow_share * w)
    return float(values[:-1].abs().max()) if len(w) > 1 else 0.0


def simulate(names: tuple[str, ...], settings: RunSettings, final_flush_mixes: int) -> Agreement:
    """A whole run of these nodes."""
    return _Run(names, settings, final_flush_mixes).run()


class _Run:
    def __init__(self, names: tuple[str, ...], settings: RunSettings, final_flush_mixes: int) -> None:
        self._names, self._settings = names, settings
        self._schedule = Schedule(settings, BLOCKS, final_flush_mixes)
        self._hyper = Hyper.of(settings)
        self._codec = CODECS[settings.codec]
        self._random = torch.Generator().manual_seed(settings.seed)
        shape = (BLOCKS, len(names), ELEMENTS)
        common = torch.randn(BLOCKS, 1, ELEMENTS, generator=self._random)
        self._places = common + torch.randn(shape, generator=self._random)
        self._x = torch.zeros(shape)

    def run(self) -> Agreement:
        rounds = self._settings.rounds * BLOCKS
        for index in range(rounds):
            trained = self._visit(index)
        flushed = self._distance()
        for index in range(rounds, len(self._schedule)):
            self._visit(index)
        ended = self._distance()
        mixes = self._schedule[rounds].flush_mixes
        gamma = self._settings.learning_rate
        moved = float(self._x.mean(dim=1).square().mean().sqrt())
        # The final flush begins where each block's last visit ended.
        left = (ended / flushed) ** (1.0 / mixes) if flushed > 0.0 else 0.0
        return Agreement(trained / gamma, flushed / gamma, ended / gamma, moved / gamma, left)

    def _visit(self, index: int) -> float:
        """One activation. Returns the block's consensus distance after its last step with a gradient."""
        activation, near = self._schedule[index], graph(self._names, self._settings, index, self._schedule.blocks)
        w = weights(near).float()
        x = self._x[activation.block]
        public = _coded(KEYFRAME, x)
        moments, counts = Moments(torch.zeros_like(x), torch.zeros_like(x)), Counts()
        trained = 0.0
        for inner in range(activation.steps):
            gradient = inner < activation.inner_steps
            half, g, gamma = moments, None, 0.0
            if gradient:
                g = x - self._places[activation.block] + torch.randn(x.shape, generator=self._random)
                counts = deca.half_counts(self._hyper, counts)
                gamma = deca.learning_rate(
                    self._settings, self._schedule.gradient_ordinal(Step(index, inner)), self._schedule.gradient_steps
                )
                x, half = deca.half_step(self._hyper, counts, x, moments, g, gamma=gamma)
            flow = None
            if self._schedule.mixes(Step(index, inner)):
                public = public + _coded(self._codec, x - public)
                flow = self._settings.flow_share * (w @ public - public)
                x = x + flow
            if gradient:
                h = deca.discrepancy(self._hyper, counts, half, flow, gamma=gamma)
                moments = deca.fold(self._hyper, counts, half, h, g)
                counts = deca.folded_counts(self._hyper, counts)
                trained = _rms(x)
        self._x[activation.block] = x
        return trained

    def _distance(self) -> float:
        return float(sum(_rms(x) ** 2 for x in self._x) / BLOCKS) ** 0.5


def _coded(codec: Codec, x: Tensor) -> Tensor:
    """The decoded rows at their receivers."""
    codes = torch.empty(codec.nbytes(x.numel()), dtype=torch.uint8)
    codec.encode(x.reshape(-1), codes)
    return codec.decode(codes, 0, x.numel()).view_as(x)


def _rms(x: Tensor) -> float:
    """The consensus distance of rows x."""
    return float((x - x.mean(dim=0)).square().mean().sqrt())
