"""The promises of compressed averaging on long runs: the mean stays, all nodes agree, and a seed replays a run.

Public copies, codecs and mixing are those of production. Time is a list of events that a seed draws. The figures are
printed, to show how near they come to their bounds.
"""

import hashlib
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.topology import graph
from deca_node.protocol.agreed.weights import SHARE_ONE, flush_mixes, matrix
from deca_node.protocol.errors import SettingsError
from tests.numerics import reference
from tests.numerics.exchange.test_flows import CPU, Net, keyframe_of, origin_of, start
from tests.numerics.reference import Array

Say = Callable[[str], None]

STEPS, STEPS_PER_ACTIVATION = 1000, 50
NODES, ELEMENTS = 6, 257
D = 3
STALLS_PER_STEP = 0.002
"""Chance that a link stops carrying anything until its edge is given up."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Print a figure past pytest's capture."""

    def write(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n    {text}\n")

    return write


# --- the mean ---------------------------------------------------------------------------------------


class Storm:
    """Nodes that walk at random and exchange in int4. A seed decides when each end of each edge applies its flows, up
    to D exchanges late. If a link stalls for longer, the edge is closed at both ends, and opened again at the next
    activation."""

    def __init__(self, seed: int, shares: Mapping[str, int] | None = None) -> None:
        self.rng = random.Random(seed)
        s = [(shares or {}).get(name, SHARE_ONE) / SHARE_ONE for name in "abcdef"]
        self.shares = torch.tensor(s, dtype=torch.float64)
        self.noise = torch.Generator().manual_seed(seed)
        self.codec = CODECS["int4"]
        self.W = np.array(matrix(graph("abcdef", RunSettings(topology="exponential")), shares))
        self.x0 = torch.full((ELEMENTS,), 0.3)
        self.x = self.x0 + 1e-2 * torch.randn(NODES, ELEMENTS, generator=self.noise)
        self.expected = self.sum(self.x)
        """What the sum over nodes, each in its share, has to be: their walks, and flows of which one end is applied,
        not yet the other."""
        self.equal = not shares
        self.pending: dict[tuple[int, int, int], Tensor] = {}
        self.counts: Counter[str] = Counter()
        self.worst_event = self.worst_sum = 0.0
        self.digest = hashlib.sha256()

    def sum(self, x: Tensor) -> Tensor:
        """The sum over nodes, each in its share."""
        return self.shares @ x.double()

    def run(self, steps: int = STEPS) -> None:
        for _ in range(steps // STEPS_PER_ACTIVATION):
            self.activation()
            assert not self.pending, "one end of an edge has applied what the other never will"

    def activation(self) -> None:
        self.open_edges()
        for step in range(STEPS_PER_ACTIVATION):
            self.walk()
            self.send()
            for i, j in sorted(self.edges):
                self.exchange(i, j, step)
            self.digest.update(self.x.numpy().tobytes())
        for i, j in sorted(self.edges):
            self.even(i, j, STEPS_PER_ACTIVATION)

    def open_edges(self) -> None:
        origin = origin_of(self.x0)
        keyframes = [keyframe_of(x, origin) for x in self.x]
        self.public = [PublicCopies(self.codec, ELEMENTS, origin, k, CPU) for k in keyframes]
        self.frames: list[list[Tensor]] = []
        self.edges = {(i, j) for i in range(NODES) for j in range(i) if self.W[i, j] > 0}
        self.stalled: set[tuple[int, int]] = set()
        self.applied = {end: 0 for i, j in self.edges for end in ((i, j), (j, i))}
        for i, j in self.applied:
            self.public[i].open(str(j), float(self.W[i, j]), keyframes[j], keyframes[i])
        self.counts["opened"] += len(self.edges)

    def walk(self) -> None:
        """A half step: each node moves by itself."""
        before = self.sum(self.x)
        self.x += 1e-3 * torch.randn(self.x.shape, generator=self.noise)
        self.expected += self.sum(self.x) - before

    def send(self) -> None:
        frames = [torch.empty(self.codec.nbytes(ELEMENTS), dtype=torch.uint8) for _ in self.public]
        for public, x, frame in zip(self.public, self.x, frames, strict=True):
            public.difference(x, frame)
        self.frames.append(frames)

    def exchange(self, i: int, j: int, step: int) -> None:
        """Each end applies the flows that have arrived; an edge more than D behind is closed."""
        if self.rng.random() < STALLS_PER_STEP:
            self.stalled.add((i, j))
        if (i, j) not in self.stalled:
            for end in ((i, j), (j, i)):
                self.apply_to(end, max(self.applied[end], step + 1 - self.rng.randint(0, D)))
        elif step + 1 - min(self.applied[i, j], self.applied[j, i]) > D:
            self.close(i, j)

    def close(self, i: int, j: int) -> None:
        """A close names the last applied flow; the end that is behind catches up to it."""
        self.even(i, j, max(self.applied[i, j], self.applied[j, i]))
        self.public[i].drop(str(j))
        self.public[j].drop(str(i))
        self.edges.remove((i, j))
        self.counts["closed"] += 1

    def even(self, i: int, j: int, until: int) -> None:
        self.apply_to((i, j), until)
        self.apply_to((j, i), until)

    def apply_to(self, end: tuple[int, int], until: int) -> None:
        for step in range(self.applied[end], until):
            self.counts["late"] += step < len(self.frames) - 1
            self.apply(*end, step)
        self.applied[end] = until

    def apply(self, i: int, j: int, step: int) -> None:
        """One end applies one flow: an event. Then the sum over nodes is checked."""
        flow = FlowBytes(str(j), self.frames[step][j], self.frames[step][i])
        self.public[i].check([flow])
        before = self.x[i].double()
        self.x[i], E = deca.mix(self.x[i], self.public[i].advance([flow], 0, ELEMENTS), 0.5)
        other = self.pending.pop((j, i, step), None)
        if other is None:
            self.pending[i, j, step] = E
        elif self.equal:
            assert torch.equal(E, -other), "the two ends of an edge differ"
        else:
            apart = self.shares[i] * E.double() + self.shares[j] * other.double()
            assert apart.abs().max() <= 1e-6 * (self.shares[i] * E.double()).abs().max(), "the two ends differ"
        self.expected += self.shares[i] * E.double()
        self.counts["events"] += 1
        self.worst_event = max(self.worst_event, in_ulps(self.x[i].double() - before - E.double()))
        self.worst_sum = max(self.worst_sum, in_ulps((self.sum(self.x) - self.expected) / self.shares.sum()))


def in_ulps(error: Tensor) -> float:
    """The largest magnitude, in units in the last place of numbers in [0.25, 0.5), where x is."""
    return float(error.abs().max()) / 2.0**-25


@pytest.fixture(scope="module")
def storm() -> Storm:
    """A thousand steps under one seed."""
    one = Storm(seed=1)
    one.run()
    return one


def test_the_mean_is_preserved_at_every_event_of_a_storm(storm: Storm, say: Say) -> None:
    """int4, 1000 steps, lateness up to D, edges closed and opened again: each flow that one end of an edge applies
    changes the mean over nodes by float32's rounding of that addition and nothing else.

    A flow that only one end has applied so far is accounted for. The other end's flow is its opposite bit for bit.
    """
    say(
        f"{storm.counts['events']} flows, {storm.counts['late']} of them late, {storm.counts['closed']} edges closed, "
        f"{storm.counts['opened']} opened: worst rounding of an event {storm.worst_event:.2f} ulp, "
        f"of the mean over {STEPS} steps {storm.worst_sum:.1f} ulp"
    )
    assert storm.counts["late"] > 1000 and storm.counts["closed"] > 5
    assert storm.worst_event <= 1.0
    # Rounding errors add up like a random walk: about 2 sqrt(events per node) / sqrt(nodes) at the worst element.
    assert storm.worst_sum < 2 * math.sqrt(storm.counts["events"]) / NODES


def test_the_weighted_mean_is_preserved_at_every_event_of_a_storm(say: Say) -> None:
    """The same with nodes that count from a quarter to four times as much: what one end gives in its share is what the
    other end takes in its own, up to float32's rounding of w_ij."""
    one = Storm(seed=3, shares={"a": 4000, "b": 250, "c": 1000, "d": 2500, "e": 333, "f": 777})
    one.run(300)
    say(f"{one.counts['events']} flows, {one.counts['late']} late: weighted mean within {one.worst_sum:.1f} ulp")
    assert one.counts["late"] > 300 and one.counts["closed"] > 0
    assert one.worst_event <= 1.0
    assert one.worst_sum < 4 * math.sqrt(one.counts["events"]) / NODES
    moved = float((one.x.double().mean(dim=0) - one.x0.double()).abs().max())
    assert moved > 1e-3, "the ordinary mean is another one"


def test_the_same_seed_gives_the_same_trajectory(storm: Storm, say: Say) -> None:
    again, other = Storm(seed=1), Storm(seed=2)
    again.run()
    other.activation()
    say(f"all of the {STEPS} steps hash to {again.digest.hexdigest()[:16]}")
    assert again.digest.hexdigest() == storm.digest.hexdigest()
    assert other.digest.hexdigest() != storm.digest.hexdigest()


# --- agreement --------------------------------------------------------------------------------------


def weights(topology: str, nodes: int) -> Array:
    """W of the run's graph."""
    return np.array(matrix(graph([f"{i:02d}" for i in range(nodes)], RunSettings(topology=topology))))


@pytest.mark.parametrize("topology", ["ring", "erdos-renyi", "hypercube"])
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_gossip_ends_within_a_thousandth_of_the_exact_result(name: str, topology: str, say: Say) -> None:
    """After as many mixes as bring exact gossip to 1e-3, from a random start, every node is where exact gossip ends."""
    W, x = weights(topology, 8), start(8)
    first, exact, net = reference.consensus_distance(x.numpy()), x.double().numpy(), Net(CODECS[name], W, x.clone())
    left = float(np.sort(np.abs(np.linalg.eigvalsh(W)))[-2])
    for _ in range(math.ceil(math.log(1e-3) / math.log(left))):
        net.mix()
        exact = W @ exact
    apart = float(np.sqrt(np.mean((net.x.numpy() - exact) ** 2))) / first
    ends = [reference.consensus_distance(values) / first for values in (net.x.numpy(), exact)]
    say(f"{name}, {topology}: consensus {ends[0]:.1e}, exact {ends[1]:.1e}, apart {apart:.1e} of the start's")
    assert apart < 1e-3
    assert abs(ends[0] - ends[1]) < 1e-3


@pytest.mark.parametrize(("exchange", "late"), [("lockstep", 0), ("overlap", 1)])
@pytest.mark.parametrize("name", ["fp32", "bf16", "int8", "int4", "topk"])
def test_gossip_with_shares_ends_at_the_weighted_mean(name: str, exchange: str, late: int, say: Say) -> None:
    """In every codec at its largest gamma_c, in time or with every flow one step late."""
    found, x = graph([f"{i:02d}" for i in range(8)], RunSettings(topology="exponential")), start(8)
    shares = dict(zip(sorted(found), (4000, 1000, 500, 250, 2000, 1000, 750, 3000), strict=True))
    run = RunSettings(codec=name, exchange=exchange)
    net = Net(CODECS[name], np.array(matrix(found, shares)), x.clone(), run.flow_share)
    s = np.array([shares[i] for i in sorted(found)]) / sum(shares.values())
    wanted, first = s @ x.double().numpy(), reference.consensus_distance(x.numpy())
    for step in range(-late, flush_mixes(found, run, shares)):
        net.send()
        for i, j in net.edges() if step >= 0 else ():
            net.apply(i, j, step)
    apart = np.abs(net.x.double().numpy() - wanted).max() / first
    kept = np.abs(s @ net.x.double().numpy() - wanted).max() / first
    say(f"{name}, {exchange}: {apart:.1e} of the disagreement left, the weighted mean moved by {kept:.1e} of it")
    assert apart < 1e-3 and kept < 5e-4


@pytest.mark.parametrize("name", ["fp32", "int8", "int4"])
def test_overlap_converges_at_its_bound_and_would_diverge_above(name: str, say: Say) -> None:
    """Every flow on every edge is one step late, as if all computing overlapped all sending."""
    found = {gamma_c: late_gossip(name, gamma_c, 60) for gamma_c in (0.5, 1.0)}
    say(f"{name}, one step late: {found[0.5]:.1e} of the disagreement left at 0.5, {found[1.0]:.1e} at 1")
    assert found[0.5] < 1e-3
    assert found[1.0] > 10
    assert RunSettings(exchange="overlap", codec=name).flow_share == 0.5
    with pytest.raises(SettingsError, match=r"^exchange = 'overlap' needs gamma_c <= 0.5, got 1.0"):
        RunSettings(exchange="overlap", codec=name, gamma_c=1.0)


def late_gossip(name: str, gamma_c: float, mixes: int) -> float:
    """The share of the disagreement that is left on a torus if all flows are one step late."""
    net = Net(CODECS[name], weights("torus", 9), start(9), gamma_c)
    first = reference.consensus_distance(net.x.numpy())
    net.send()
    for step in range(mixes):
        net.send()
        for i, j in net.edges():
            net.apply(i, j, step)
    return reference.consensus_distance(net.x.numpy()) / first


@pytest.mark.parametrize("late", [0, 1, 2, 4, 8])
def test_how_late_every_edge_may_be(late: int, say: Say) -> None:
    """x(s+1) = x(s) - gamma_c (I - W) x(s-d) is stable if gamma_c (1 - lambda_n) < 2 sin(pi / (4 d + 2)), with lambda_n
    the smallest eigenvalue of W (Levin and May, 1976, for one such delay equation)."""
    W = weights("torus", 9)
    bound = 2 * math.sin(math.pi / (4 * late + 2)) / (1 - float(np.linalg.eigvalsh(W)[0]))
    ends = [delayed(W, share * bound, late) for share in (0.95, 1.05)]
    say(f"all edges {late} late: gamma_c < {bound:.2f} ({ends[0]:.1e} left below, {ends[1]:.1e} above)")
    assert ends[0] < 0.1
    assert ends[1] > 10


def delayed(W: Array, gamma_c: float, late: int) -> float:
    """The share of the disagreement that exact gossip leaves after many mixes if all flows are so late."""
    x = [start(len(W)).double().numpy()] * (late + 1)
    for _ in range(120 * (late + 1)):
        x = [*x[1:], x[-1] - gamma_c * (x[0] - W @ x[0])]
    return reference.consensus_distance(x[-1]) / reference.consensus_distance(start(len(W)).numpy())
