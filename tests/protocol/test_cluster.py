"""Whole runs of several nodes under a fake clock: fair weather, storms, and the tools themselves.

Throughout, the audit of :mod:`tests.protocol.fakes` is held after every event: the mean over nodes stays where it
is, and every flow is applied once, in step order, with opposite effect at both ends. A seed that fails prints
itself and the end of its transcript.
"""

import dataclasses
import itertools
import random
from collections import Counter
from functools import partial

import pytest

from deca_node.lab.cluster import Cluster, FrameBook, seats
from deca_node.lab.fake_network import Agenda, Crash, Cut, Network, Pause, Weather
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import TrainerError
from deca_node.protocol.frames import FrameId, FrameKind
from deca_node.protocol.node import Node
from deca_node.protocol.patience import Patience
from deca_node.protocol.run import RunSettings
from tests.protocol.fakes import NAMES, Audit, FakeTrainer, fake_cluster

ARMS = list(itertools.product(("ring", "full", "erdos-renyi"), ("lockstep", "overlap")))
SEEDS = 200

SHORT = RunSettings(rounds=1, inner_steps=3, flush_mixes=1, topology="ring")


def counted(cluster: Cluster) -> Counter[str]:
    """The counters of all nodes together."""
    total: Counter[str] = Counter()
    for seat in cluster.seats.values():
        total.update(seat.node.counters)
    return total


def assert_ended_well(cluster: Cluster, audit: Audit, crashed: frozenset[str] = frozenset()) -> None:
    """Every node that lives finished with 0, holds no frame, and knows what may have stayed uneven."""
    survivors = set(cluster.seats) - crashed
    assert {name: cluster.ends[name].exit_code for name in survivors} == dict.fromkeys(survivors, 0)
    assert {name: cluster.seats[name].frames.held() for name in survivors} == {name: [] for name in survivors}
    assert all(": replay of" in broken for broken in cluster.broken_rules), "nobody sends more than it may"
    single = [key for key in audit.single if not crashed & {key[2], key[3]}]
    assert len(single) <= counted(cluster)["flows_uneven_max"]


# --- whole runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 4, 8])
@pytest.mark.parametrize(("topology", "exchange"), ARMS)
def test_fair_weather(topology: str, exchange: str, nodes: int) -> None:
    """Nothing is dropped, nothing stays uneven, and the flush makes all copies agree."""
    settings = dataclasses.replace(SHORT, topology=topology, exchange=exchange, block_order="shuffled")
    cluster, audit = fake_cluster(nodes, nodes, settings, Patience(), Weather())
    cluster.run()
    assert_ended_well(cluster, audit)
    assert audit.single == {} and cluster.broken_rules == []
    assert {"edges_dropped", "edges_lost", "offers_declined", "updates_unused"}.isdisjoint(counted(cluster))
    assert audit.spread() < 1e-3
    assert (audit.applied > 0) == (nodes > 1)


def storm(seed: int) -> tuple[int, RunSettings, Patience, Weather]:
    """Nodes, run, patience and weather of one seed: anything from a quiet day to one where little works."""
    rng = random.Random(f"storm:{seed}")
    topology, exchange = ARMS[seed % len(ARMS)]
    nodes = rng.choice([4, 4, 4, 8])
    names = NAMES[:nodes]
    settings = RunSettings(
        seed=seed,
        topology=topology,
        exchange=exchange,
        rounds=rng.choice([1, 2]),
        inner_steps=rng.choice([1, 2, 4]),
        flush_mixes=rng.choice([0, 1, 2]),
        final_flush_mixes=rng.choice([2, 5]),
        mix_every=rng.choice([1, 1, 2, 3]),
        late_steps=rng.choice([1, 2, 4]),
    )
    patience = Patience(
        open=rng.choice([0.3, 2.0, 10.0]),
        step=rng.choice([0.05, 0.2, 1.0, 10.0]),
        finish=rng.choice([1.0, 5.0]),
        eval_every=rng.choice(["round", "activation", "end"]),
    )
    apart = (0.0, 0.3, 3.0)
    cuts = [Cut(*rng.sample(names, 2), rng.uniform(2, 8), rng.choice(apart)) for _ in range(rng.choice([0, 3, 9]))]
    pauses = [Pause(rng.choice(names), rng.uniform(1, 6), rng.uniform(0.1, 8)) for _ in range(rng.choice([0, 1, 2]))]
    crashes = [Crash(rng.choice(names), rng.uniform(3, 9)) for _ in range(rng.choice([0, 0, 1]))]
    weather = Weather(
        delay=rng.choice([(0.001, 0.02), (0.01, 0.3), (0.0, 1.0)]),
        link_slowness=rng.choice([(1.0, 1.0), (1.0, 10.0)]),
        node_slowness=rng.choice([(1.0, 1.0), (1.0, 6.0)]),
        notice=rng.choice([(0.0, 0.2), (0.0, 0.0)]),
        cuts=tuple(cuts),
        pauses=tuple(pauses),
        crashes=tuple(crashes),
    )
    return nodes, settings, patience, weather


@pytest.mark.parametrize("seed", range(SEEDS))
def test_storm(seed: int) -> None:
    """Whatever is late, cut, paused or dead: those who live come to the end of the run."""
    nodes, settings, patience, weather = storm(seed)
    cluster, audit = fake_cluster(seed, nodes, settings, patience, weather)
    cluster.run(until=3600.0)
    assert_ended_well(cluster, audit, frozenset(crash.name for crash in weather.crashes))


def test_storms_are_storms() -> None:
    """The seeds above reach what they are meant to reach."""
    total: Counter[str] = Counter()
    for seed in range(0, SEEDS, 5):
        cluster, audit = fake_cluster(seed, *storm(seed))
        cluster.run(until=3600.0)
        total += counted(cluster) + Counter({"uneven": len(audit.single)})
    reached = ("flows_late", "edges_dropped", "edges_closed_by_peer", "edges_lost", "offers_declined", "updates_unused")
    assert min(total[name] for name in (*reached, "uneven")) > 10, total


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_transcript(seed: int) -> None:
    transcripts = []
    for chosen in (seed, seed, seed + 1):
        cluster, _ = fake_cluster(chosen, *storm(seed))
        cluster.run(until=3600.0)
        transcripts.append(cluster.transcript())
    assert transcripts[0] == transcripts[1] != transcripts[2]


@pytest.mark.parametrize("exchange", ["lockstep", "overlap"])
@pytest.mark.parametrize("seed", range(5))
def test_late_flows_are_applied_and_leave_the_mean(seed: int, exchange: str) -> None:
    """Flows miss their deadlines, no edge is given up, and in the end both ends of every edge are even."""
    settings = dataclasses.replace(SHORT, topology="full", exchange=exchange, inner_steps=8, late_steps=8)
    cluster, audit = fake_cluster(seed, 4, settings, Patience(step=0.25), Weather(delay=(0.01, 0.27)))
    cluster.run()
    assert_ended_well(cluster, audit)
    assert counted(cluster)["flows_late"] > 0 and counted(cluster)["edges_dropped"] == 0
    assert audit.single == {}


@pytest.mark.parametrize("seed", range(10))
def test_dropped_edges_end_even_while_links_live(seed: int) -> None:
    """One node falls behind by more than D: its edges are closed, and still what one end applied the other does."""
    weather = Weather(delay=(0.001, 0.02), pauses=(Pause("b", 1.5, 1.0),))
    settings = dataclasses.replace(SHORT, topology="full", inner_steps=30, late_steps=1)
    cluster, audit = fake_cluster(seed, 4, settings, Patience(step=0.2, open=5.0), weather)
    cluster.run()
    assert_ended_well(cluster, audit)
    assert counted(cluster)["edges_closed_by_peer"] > 0
    assert audit.single == {}


@pytest.mark.parametrize("seed", range(10))
def test_a_pause_shorter_than_patience_costs_no_edge(seed: int) -> None:
    weather = Weather(pauses=(Pause("b", 1.0 + 0.2 * seed, 2.0),))
    cluster, audit = fake_cluster(seed, 4, SHORT, Patience(step=5.0, open=5.0), weather)
    cluster.run()
    assert_ended_well(cluster, audit)
    assert {"edges_dropped", "edges_lost", "edges_closed_by_peer"}.isdisjoint(counted(cluster))
    assert audit.spread() < 1e-3


def test_nobody_waits_for_a_goodbye_that_was_lost() -> None:
    """The stream between a and b breaks while both goodbyes are under way, and c, who sleeps, keeps them there."""
    slow = Weather(delay=(0.5, 0.5))
    undisturbed, _ = fake_cluster(1, 3, SHORT, Patience(finish=1e6), slow)
    undisturbed.run()
    said = [line.when for line in undisturbed.lines if isinstance(line.fact, c.SendBye) and line.node in "ab"]
    weather = dataclasses.replace(
        slow, cuts=(Cut("a", "b", max(said) + 0.01, 0.0),), pauses=(Pause("c", min(said) - 0.01, 10.0),)
    )
    cluster, audit = fake_cluster(1, 3, SHORT, Patience(finish=1e6), weather)
    cluster.run()
    assert_ended_well(cluster, audit)
    goodbyes = [line.node for line in cluster.lines if isinstance(line.fact, c.SendBye)]
    assert goodbyes.count("a") == goodbyes.count("b") == 3
    assert cluster.now < 100


def test_a_partition_trains_on_both_sides_and_agrees_after_it_heals() -> None:
    """Two halves are cut apart for a few activations; each goes on, and the flush brings them together."""
    settings = dataclasses.replace(SHORT, topology="full", rounds=6, inner_steps=6)
    apart = tuple(Cut(a, b, 2.0, 3.0) for a in "ab" for b in "cd")
    cluster, audit = fake_cluster(1, 4, settings, Patience(), Weather(cuts=apart))
    cluster.run()
    assert_ended_well(cluster, audit)
    assert counted(cluster)["edges_lost"] >= 8
    assert audit.spread() < 1e-3


def test_stop_of_one_node() -> None:
    cluster, audit = fake_cluster(1, 4, SHORT, Patience(), Weather())
    cluster.tell("b", e.StopRequested(), at=1.5)
    ends = cluster.run()
    assert ends["b"] == c.Finish(0, "stopped as asked; the model as it stood is in stopped")
    assert {ends[name].sentence for name in "acd"} == {"the run is complete"}
    assert audit.applied > 0


# --- the tools --------------------------------------------------------------------------------------


class Failing(FakeTrainer):
    """Runs out of memory at its first half step."""

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        if isinstance(command, c.HalfStep):
            raise TrainerError("out of memory")
        return super().obey(command)


def test_a_trainer_that_refuses_ends_its_own_node_only() -> None:
    audit = Audit()

    def trainer(node: Node, frames: FrameBook) -> FakeTrainer:
        return (Failing if node.name == "b" else FakeTrainer)(node.name, SHORT, frames, audit)

    nodes = [Node(name, ("a", "b", "c"), SHORT, Patience()) for name in "abc"]
    ends = Cluster(seats(nodes, trainer)).run()
    assert ends["b"] == c.Finish(TrainerError.exit_code, "out of memory")
    assert ends["a"].exit_code == ends["c"].exit_code == 0


def test_a_failure_tells_seed_and_transcript() -> None:
    cluster, audit = fake_cluster(17, 3, SHORT, Patience(), Weather())
    audit.start[1] = [1.0] * len(audit.start[1])
    with pytest.raises(AssertionError, match="the mean of block 1 has moved") as failure:
        cluster.run()
    [note] = failure.value.__notes__
    assert note.startswith("cluster seed 17; the transcript ends with\n")
    assert "trainer-ready blocks=2" in note


def test_a_standstill_says_who_waits_for_whom() -> None:
    weather = Weather(crashes=(Crash("c", 0.0),))
    cluster, _ = fake_cluster(1, 3, SHORT, Patience(), weather)
    with pytest.raises(AssertionError, match=r"stuck at .*: a awaits peers: c; b awaits peers: c"):
        cluster.run()


def test_the_frame_book_is_strict() -> None:
    frames, frame = FrameBook(), FrameId("a", FrameKind.UPDATE, 0, 0)
    frames.reserve(frame, 4)
    frames.view(frame)[:] = b"1234"
    assert frame in frames and len(frames) == frames.held_from("a") == 1
    with pytest.raises(AssertionError, match="held already"):
        frames.reserve(frame, 4)
    frames.release(frame)
    with pytest.raises(AssertionError, match="is released, but it is not held"):
        frames.release(frame)
    with pytest.raises(AssertionError, match="is not held"):
        frames.view(frame)


@pytest.mark.parametrize("seed", range(20))
def test_streams_keep_their_order_and_lose_what_is_under_way_when_cut(seed: int) -> None:
    """What arrives is a part of what was sent, in its order; and ups and downs alternate at each end."""
    heard: dict[str, list[e.NetworkEvent]] = {"a": [], "b": []}
    agenda, rng = Agenda(), random.Random(seed)
    weather = Weather(delay=(0.0, 1.0), cuts=(Cut("a", "b", 5.0, 1.0), Cut("a", "b", 9.0, 0.0)))
    network = Network("ab", weather, agenda, rng, lambda name, event, _: heard[name].append(event), lambda _: -1)
    network.join("a")
    network.join("b")
    for i in range(100):
        agenda.at(0.15 * i, partial(network.send, "a", "b", e.CloseReceived("a", i, -1, "")))
    while agenda.step():
        pass
    ups_and_downs = [type(event) for event in heard["a"]]
    assert ups_and_downs == [e.PeerUp, e.PeerDown] * 2 + [e.PeerUp]
    assert [type(event) for event in heard["b"] if not isinstance(event, e.CloseReceived)] == ups_and_downs
    numbers = [event.activation for event in heard["b"] if isinstance(event, e.CloseReceived)]
    assert numbers == sorted(set(numbers))
    assert 60 < len(numbers) < 100
