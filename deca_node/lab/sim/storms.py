"""Storms: seeded runs of small clusters with faults of every kind, checked after every event.

::

    python -m deca_node.lab.sim.storms --seeds 10000 --processes 2
    python -m deca_node.lab.sim.storms --seed 4711        one seed, with its whole transcript

One seed decides the number of nodes, their run, their policy and their faults: slow and broken links; nodes that sleep,
or crash and return with or without their disk; trainers that die; disks that refuse; bytes that were changed on the
way; and users who pause and stop nodes. The audit checks that nothing is applied twice and that the mean moves only by
counted amounts. Every run must end.
"""

import argparse
import dataclasses
import itertools
import multiprocessing
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

from deca_node.lab.sim.audit import BLOCKS, Audit
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.fake_trainer import fake_cluster
from deca_node.lab.sim.weather import Ask, Crash, Cut, Deaf, Death, Pause, Weather, partition
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.agreed.topology import final_graph
from deca_node.protocol.errors import PeersMissingError, TrainerError
from deca_node.protocol.visit.policy import Policy

NAMES = "abcdefgh"
ARMS = tuple(itertools.product(("ring", "full", "erdos-renyi"), ("lockstep", "overlap")))
UNTIL = 7200.0
"""Fake seconds after which a run counts as one that never ends."""

ASKED: tuple[e.Event, ...] = (
    e.PauseRequested(),
    e.PauseRequested(),
    e.StopRequested(),
    e.LeaveRequested(),
    e.CheckpointRequested(),
)

CALM = 0.15
"""The share of the storms whose faults end before the run does."""

MATCHED = 0.2
"""The share of the storms in which a node has one neighbour per visit."""

MOMENTS_FIRST = 0.3
"""The share of the storms in which moments travel by themselves between exchanges of parameters."""

AGREED = 0.01
"""The largest distance between copies after a whole final flush. They begin about 1 apart."""


@dataclasses.dataclass(frozen=True)
class Storm:
    """The cluster of one seed."""

    seed: int
    names: tuple[str, ...]
    settings: RunSettings
    policy: Policy
    weather: Weather

    def cluster(self) -> tuple[Cluster, Audit]:
        """The cluster before its first event."""
        return fake_cluster(self.seed, self.names, self.settings, self.policy, self.weather)


# --- what befalls whom ------------------------------------------------------------------------------


def storm(seed: int) -> Storm:
    """A random storm: anything from no faults to so many that little works."""
    rng = random.Random(f"storm:{seed}")
    exchange = ARMS[seed % len(ARMS)][1]
    names = tuple(NAMES[: rng.choice([2, 3, 3, 4, 4, 5, 6, 8])])
    settings = RunSettings(
        seed=seed,
        exchange=exchange,
        rounds=rng.choice([1, 2, 2]),
        inner_steps=rng.choice([1, 2, 3, 4]),
        flush_mixes=rng.choice([0, 1, 2]),
        final_flush_mixes=rng.choice([0, 2, 5]),
        mix_every=rng.choice([1, 1, 2, 3]),
        late_steps=rng.choice([1, 2, 4]),
        **_exchange(seed),
    )
    policy = Policy(
        gather=30.0,
        regather=rng.choice([0.5, 5.0]),
        open=rng.choice([0.3, 2.0, 10.0]),
        step=rng.choice([0.05, 0.2, 1.0, 10.0]),
        farewell=rng.choice([0.1, 1.0]),
        finish=rng.choice([1.0, 5.0]),
        stay=False,
        # Nodes that come back when the others are gone would wait for them, and the storm would not end.
        alone=True,
        eval_every=rng.choice(["round", "activation", "end"]),
        checkpoint_every=rng.choice([0, 0, 1, 2]),
    )
    drawn = Storm(seed, names, settings, policy, weather(rng, names))
    whole = calmed(drawn) if rng.random() < CALM else drawn
    return stopping(whole) if seed % 3 == 2 else whole


def _exchange(seed: int) -> dict[str, Any]:
    """The graph, and what travels over it when: in some storms a neighbour at a time, in some moments of their own."""
    rng = random.Random(f"exchange:{seed}")
    chosen: dict[str, Any] = {"topology": ARMS[seed % len(ARMS)][0]}
    if rng.random() < MATCHED:
        chosen["topology"] = rng.choice(MATCHINGS)
    if rng.random() < MOMENTS_FIRST:
        chosen |= {"moments_every": rng.choice([1, 1, 2]), "moment_bits": 1}
    return chosen


def stopping(storm: Storm) -> Storm:
    """The same storm with a run that stops early: no round brings a lower loss."""
    rng = random.Random(f"stopping:{storm.seed}")
    settings = dataclasses.replace(storm.settings, rounds=8, early_stop_rounds=rng.choice([1, 2]))
    policy = dataclasses.replace(storm.policy, spread=rng.choice([0.0, 0.5]))
    return dataclasses.replace(storm, settings=settings, policy=policy)


def calmed(storm: Storm) -> Storm:
    """The same storm with a longer run, all of whose faults end before the run does. All surviving nodes must then
    agree."""
    w = storm.weather
    early = dataclasses.replace(
        w,
        delay=(0.001, 0.02),
        link_slowness=(1.0, 1.0),
        node_slowness=(1.0, 1.0),
        fetch=(0.05, 0.5),
        hearsay=(0.0, 0.2),
        fetch_failing=0.0,
        malformed=0.0,
        cuts=tuple(dataclasses.replace(cut, seconds=min(cut.seconds, 1.0)) for cut in w.cuts if cut.at < 3),
        deaf=tuple(dataclasses.replace(deaf, seconds=min(deaf.seconds, 1.0)) for deaf in w.deaf if deaf.at < 3),
        pauses=tuple(dataclasses.replace(pause, seconds=min(pause.seconds, 1.0)) for pause in w.pauses if pause.at < 3),
        crashes=tuple(dataclasses.replace(crash, back=0.5) for crash in w.crashes if crash.event > 0 or crash.at < 3),
        asks=tuple(ask for ask in w.asks if isinstance(ask.what, e.CheckpointRequested)),
    )
    settings = dataclasses.replace(storm.settings, rounds=8, inner_steps=4, final_flush_mixes=0)
    policy = dataclasses.replace(storm.policy, open=10.0, step=10.0, regather=5.0)
    return dataclasses.replace(storm, settings=settings, policy=policy, weather=early)


def weather(rng: random.Random, names: tuple[str, ...]) -> Weather:
    """The random parts of the storm: times, chances and faults."""
    return Weather(
        delay=rng.choice([(0.001, 0.02), (0.01, 0.3), (0.0, 1.0)]),
        link_slowness=rng.choice([(1.0, 1.0), (1.0, 10.0)]),
        node_slowness=rng.choice([(1.0, 1.0), (1.0, 6.0)]),
        notice=rng.choice([(0.0, 0.2), (0.0, 0.0)]),
        fetch=rng.choice([(0.05, 0.5), (0.5, 5.0)]),
        hearsay=rng.choice([(0.0, 0.0), (0.0, 0.5), (0.0, 5.0)]),
        heartbeat_lost=rng.choice([0.0, 0.2]),
        fetch_failing=rng.choice([0.0, 0.3]),
        checkpoint_failing=rng.choice([0.0, 0.0, 0.2]),
        malformed=rng.choice([0.0, 0.0, 0.01]),
        cuts=_cuts(rng, names),
        deaf=tuple(Deaf(*_pair(rng, names), rng.uniform(1, 8), rng.uniform(0.2, 3)) for _ in range(_few(rng))),
        pauses=tuple(Pause(rng.choice(names), rng.uniform(1, 6), rng.uniform(0.1, 8)) for _ in range(_few(rng))),
        crashes=_crashes(rng, names),
        deaths=tuple(Death(rng.choice(names), *_moment(rng)) for _ in range(_few(rng))),
        asks=_asks(rng, names),
    )


def _few(rng: random.Random) -> int:
    return rng.choice([0, 0, 1, 2])


def _pair(rng: random.Random, names: tuple[str, ...]) -> tuple[str, str]:
    a, b = rng.sample(names, 2)
    return a, b


def _moment(rng: random.Random) -> tuple[float, int]:
    """A time, or a number of events of a node."""
    return (rng.uniform(1, 9), 0) if rng.random() < 0.5 else (0.0, rng.randint(2, 150))


def _cuts(rng: random.Random, names: tuple[str, ...]) -> tuple[Cut, ...]:
    apart = (0.0, 0.3, 3.0)
    single = tuple(Cut(*_pair(rng, names), rng.uniform(2, 8), rng.choice(apart)) for _ in range(rng.choice([0, 3, 9])))
    if rng.random() < 0.8:
        return single
    half = rng.sample(names, len(names) // 2)
    return single + partition(half, [n for n in names if n not in half], rng.uniform(1, 6), rng.uniform(0.5, 8))


def _crashes(rng: random.Random, names: tuple[str, ...]) -> tuple[Crash, ...]:
    def one() -> Crash:
        at, event = _moment(rng)
        back = rng.choice([None, rng.uniform(0.1, 10.0), rng.uniform(0.1, 2.0)])
        return Crash(rng.choice(names), at + 2 if at else at, event, back, empty=rng.random() < 0.4)

    return tuple(one() for _ in range(_few(rng)))


def _asks(rng: random.Random, names: tuple[str, ...]) -> tuple[Ask, ...]:
    """Requests to stop, to write checkpoints, and to pause. A resume follows every pause after some time."""
    asks: list[Ask] = []
    for _ in range(_few(rng)):
        name, (at, event) = rng.choice(names), _moment(rng)
        what = rng.choice(ASKED)
        asks.append(Ask(name, what, at, event))
        if isinstance(what, e.PauseRequested):
            # A node that is paused late, by its number of events, must be resumed too.
            resumes = [rng.uniform(5, 15), 60.0, *range(100, int(UNTIL), 100)]
            asks += [Ask(name, e.ResumeRequested(), float(at)) for at in resumes]
    return tuple(asks)


# --- what must hold at the end ----------------------------------------------------------------------


def check_end(storm: Storm, cluster: Cluster, audit: Audit) -> None:
    """Assert that every surviving node ended properly, holds no frame, and reports uneven flows; and that the nodes
    agree if all took part in the whole flush."""
    crashed = {node.name for node in cluster.past}
    for name, end in cluster.ends.items():
        assert end.exit_code in _exits(storm, name, crashed), f"{name}: {end}"
        assert not cluster.seats[name].frames.held(), f"{name} still holds {cluster.seats[name].frames.held()}"
    assert all(": replay of" in broken for broken in cluster.broken_rules), cluster.broken_rules
    single = [flow for flow in audit.single.values() if not crashed.intersection(flow.ends)]
    assert len(single) <= counted(cluster)["flows_uneven_max"], f"{len(single)} flows are uneven"
    check_stops(cluster)
    if flushed(storm, cluster):
        assert audit.spread(frozenset(cluster.ends)) < AGREED, f"copies are {audit.spread()} apart"


def check_stops(cluster: Cluster) -> None:
    """Assert that no node begins a visit with gradients after it has learned that the run stops before it."""
    known: dict[str, int] = {}
    for line in cluster.lines:
        match line.fact:
            case "crash":
                known.pop(line.node, None)
            case c.AnnounceHeldout(heldout) if heldout.stop_at is not None:
                known[line.node] = heldout.stop_at
            case c.Activate(activation) if activation.inner_steps and activation.index >= known.get(line.node, 1 << 30):
                raise AssertionError(f"{line.node} trains {activation.index} and knows of a stop at {known[line.node]}")


def _exits(storm: Storm, name: str, crashed: set[str]) -> set[int]:
    """The allowed endings. A node that lost its disk may find no donor, and a node that was stopped may lose its
    trainer before the trainer could write a checkpoint."""
    asked = [ask.what for ask in storm.weather.asks if ask.name == name]
    stopped = e.StopRequested() in asked or e.LeaveRequested() in asked
    died = any(death.name == name for death in storm.weather.deaths)
    exits = {0}
    if crashed:
        exits.add(PeersMissingError.exit_code)
    if stopped and died:
        exits.add(TrainerError.exit_code)
    return exits


def counted(cluster: Cluster) -> Counter[str]:
    """The sum of the counters of all nodes, crashed ones included."""
    total: Counter[str] = Counter()
    for node in [seat.node for seat in cluster.seats.values()] + cluster.past:
        total.update(node.state.counters)
    total["stops"] = sum(seat.node.state.stopping.stop_at is not None for seat in cluster.seats.values())
    return total


def flushed(storm: Storm, cluster: Cluster) -> bool:
    """Whether all nodes took part in the whole flush, over every edge of the graph, with nothing late or lost."""
    if storm.settings.final_flush_mixes or set(cluster.ends) != set(storm.names):
        return False
    first = storm.settings.rounds * BLOCKS
    edges: dict[int, dict[str, set[str]]] = {}
    for line in cluster.lines:
        match line.fact:
            case c.Connect(activation=activation, neighbours=near) if activation >= first:
                edges.setdefault(activation, {})[line.node] = {n.peer for n in near}
            case c.Mix(step=step, flows=flows) if any(flow.theirs.inner != step.inner for flow in flows):
                # Late flows do not move the mean, but they overshoot.
                edges.pop(step.activation, None)
            case c.Report(kind="edge-lost" | "edge-dropped" | "edge-closed") if edges:
                return False
    whole = final_graph(storm.names, storm.settings)
    return len(edges) == BLOCKS and all(near == whole for near in edges.values())


# --- many of them -----------------------------------------------------------------------------------


def weathered(seed: int) -> tuple[Storm, Cluster, Audit]:
    """Run one storm. Raises AssertionError, with seed and transcript, if a rule is broken."""
    chosen = storm(seed)
    cluster, audit = chosen.cluster()
    cluster.run(until=UNTIL)
    try:
        check_end(chosen, cluster, audit)
    except AssertionError as problem:
        problem.add_note(f"storm {seed}; the transcript ends with\n{cluster.transcript(60)}")
        raise
    return chosen, cluster, audit


def _outcome(seed: int) -> tuple[int, str, Counter[str]]:
    try:
        _, cluster, audit = weathered(seed)
    except Exception:  # noqa: BLE001 - whatever it is, it is this seed's finding
        return seed, traceback.format_exc(), Counter()
    return seed, "", counted(cluster) + Counter(events=len(cluster.lines), uneven=len(audit.single))


def outcomes(seeds: range, processes: int) -> Iterator[tuple[int, str, Counter[str]]]:
    """The seed, the failure (or an empty text) and the counters of every storm, in the order in which they finish."""
    if processes == 1:
        yield from map(_outcome, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_outcome, seeds, chunksize=20)


def main() -> int:
    """Run storms, and return the number of failures."""
    parser = argparse.ArgumentParser(description="Whole runs of small clusters with faults of every kind.")
    parser.add_argument("--seeds", type=int, default=1000, help="the number of storms")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run only this storm, and print its transcript")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return _show(chosen.seed)
    began, failed, total = time.perf_counter(), 0, Counter[str]()
    for done, (seed, failure, counters) in enumerate(
        outcomes(range(chosen.first, chosen.first + chosen.seeds), chosen.processes), 1
    ):
        total += counters
        if failure:
            failed += 1
            _write(f"\n{failure}\nthe whole transcript: python -m deca_node.lab.sim.storms --seed {seed}\n")
        if done % 500 == 0 or done == chosen.seeds:
            _write(f"{done:,} storms, {failed:,} failed, {time.perf_counter() - began:.0f} s\n")
    _write(", ".join(f"{name} {count:,}" for name, count in sorted(total.items())) + "\n")
    return min(failed, 1)


def _show(seed: int) -> int:
    chosen = storm(seed)
    cluster, audit = chosen.cluster()
    try:
        cluster.run(until=UNTIL)
        check_end(chosen, cluster, audit)
    finally:
        _write(f"{chosen}\n{cluster.transcript()}\n")
    return 0


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
