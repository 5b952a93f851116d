"""The cluster of one seed: its nodes, their run and their policy, and everything that befalls them.

Most storms have faults of every kind. In some all faults end before the run does; some have no faults at all; in some
the run stops early.
"""

import dataclasses
import itertools
import random
from typing import Any

from deca_node.lab.sim.checks.audit import Audit
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.fake_trainer import fake_cluster
from deca_node.lab.sim.weather import Ask, Crash, Cut, Deaf, Death, Pause, Weather, partition
from deca_node.protocol import events as e
from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.visit.policy import Policy

NAMES = "abcdefgh"
ARMS = tuple(itertools.product(("ring", "full", "erdos-renyi"), ("lockstep", "overlap")))
KINDS = 10
"""Of ten seeds in a row some are of a special kind."""
DENSE, FAIR, GOSSIP = 1, 6, (3, 8)
"""Seeds modulo KINDS: the production exchange runs beside the fake trainers; no fault comes at all; a storm of
membership comes first."""

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

PARTNERS_CHANGE = 0.1
"""The share of the storms in which moments that travel by themselves go to another neighbour each time."""

WEIGHTED = 0.15
"""The share of the storms in which nodes count by their tokens."""

MOMENTS_FIRST = 0.3
"""The share of the storms in which moments travel by themselves between exchanges of parameters."""


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
        dense = self.seed % KINDS == DENSE
        return fake_cluster(self.seed, self.names, self.settings, self.policy, self.weather, dense=dense)


# --- what befalls whom ------------------------------------------------------------------------------


def storm(seed: int) -> Storm:
    """A random storm: anything from no faults to so many that little works."""
    rng = random.Random(f"storm:{seed}")
    exchange = ARMS[seed % len(ARMS)][1]
    names = tuple(NAMES[: rng.choice([2, 3, 3, 4, 4, 5, 6, 8])])
    lengths: dict[str, Any] = {
        "rounds": rng.choice([1, 2, 2]),
        "inner_steps": rng.choice([1, 2, 3, 4]),
        "flush_mixes": rng.choice([0, 1, 2]),
        "final_flush_mixes": rng.choice([0, 2, 5]),
        "mix_every": rng.choice([1, 1, 2, 3]),
        "late_steps": rng.choice([1, 2, 4]),
    }
    settings = RunSettings(seed=seed, exchange=exchange, **lengths | _exchange(seed))
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
    if seed % KINDS == FAIR:
        return fair(drawn)
    whole = calmed(drawn) if rng.random() < CALM else drawn
    return stopping(whole) if seed % 3 == 2 else whole


def _exchange(seed: int) -> dict[str, Any]:
    """The graph, and what travels over it when: in some storms a neighbour at a time, in some moments of their own, in
    some to a partner of their own."""
    rng = random.Random(f"exchange:{seed}")
    chosen: dict[str, Any] = {"topology": ARMS[seed % len(ARMS)][0]}
    if rng.random() < MATCHED:
        chosen["topology"] = rng.choice(MATCHINGS)
    if rng.random() < MOMENTS_FIRST:
        chosen |= {"moments_every": rng.choice([1, 1, 2]), "moment_bits": 1}
    if rng.random() < PARTNERS_CHANGE:
        chosen |= {"topology": rng.choice(MATCHINGS), "partners": "step", "moments_every": 1, "moment_bits": 1}
        chosen |= {"inner_steps": rng.choice([3, 4, 5]), "mix_every": rng.choice([2, 3, 5])}
    if rng.random() < WEIGHTED:
        chosen |= {"weights": "tokens", "weight_tokens": rng.choice([500, 1000, 2000])}
    return chosen


def fair(storm: Storm) -> Storm:
    """The same storm without a single fault, with nodes that wait for each other long enough."""
    calm = Weather(
        delay=storm.weather.delay if storm.weather.delay[1] < 0.5 else (0.001, 0.02),
        node_slowness=storm.weather.node_slowness,
        notice=storm.weather.notice,
    )
    policy = dataclasses.replace(storm.policy, open=60.0, step=60.0, floor=60.0, finish=60.0)
    settings = dataclasses.replace(storm.settings, final_flush_mixes=0)
    return dataclasses.replace(storm, settings=settings, policy=policy, weather=calm)


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
