"""How a run exchanges, by the line that it has: a ladder from many bytes to few, and three of its rungs by name.

Each rung is a set of run settings. Going down, a node sends less: first the codec, then moments in one bit while
parameters travel seldom, then one neighbour at a time. :func:`choose` takes the first rung whose communication stays
under a share of the computing and whose memory suffices.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.planning.case import Case
from deca_node.protocol.planning.duration import Seconds, run_seconds
from deca_node.protocol.planning.measured import LOSS_PERCENT
from deca_node.protocol.planning.memory import Memory, peak_memory
from deca_node.protocol.planning.traffic import planned_bytes

SHARE = 0.25
"""Communication may take this share of the computing, unless asked otherwise."""

_FOUR = {"topology": "random-regular", "degree": 4, "partners": "visit"}
_TURNS = {"topology": "pairs", "degree": 4, "partners": "step"}
_INT4 = {"codec": "int4", "signal": "mv", "signal_every": 4, "moments_every": 0, "moment_bits": 8, "mix_every": 1}
_FIRST = {"codec": "int4", "signal": "mv", "moments_every": 1, "moment_bits": 1, "v_every": 1}


@dataclass(frozen=True)
class Rung:
    """One way to exchange. ``settings`` are run settings; ``mix_every`` = 0 stands for the close of a visit. ``arm``
    names the measurement nearest to it."""

    name: str
    means: str
    settings: Mapping[str, Any]
    arm: str

    def changes(self, run: RunSettings) -> dict[str, Any]:
        """The settings of this rung in a run."""
        return {**self.settings, "mix_every": self.settings["mix_every"] or run.inner_steps, "gamma_c": 0.0}

    @property
    def loss_percent(self) -> Mapping[str, tuple[float, int]]:
        """The measured change of the loss against the defaults, by task, in percent and with the number of seeds."""
        return LOSS_PERCENT.get(self.arm, {})


LADDER = (
    Rung(
        "lan",
        "int4 at every step, moments at every fourth exchange, four neighbours",
        _INT4 | _FOUR,
        "none, mv, every 4, int4",
    ),
    Rung(
        "first-4",
        "moments in 1 bit at every step, parameters in int4 at every 4th, four neighbours",
        _FIRST | _FOUR | {"mix_every": 4},
        "1 bit, x every 4",
    ),
    Rung(
        "wan",
        "moments in 1 bit at every step, parameters in int4 at every 10th, four neighbours",
        _FIRST | _FOUR | {"mix_every": 10},
        "1 bit, x every 10",
    ),
    Rung(
        "first-close",
        "moments in 1 bit at every step, parameters in int4 at the close of a visit, four neighbours",
        _FIRST | _FOUR | {"mix_every": 0},
        "1 bit, x at the close",
    ),
    Rung(
        "turns-10",
        "moments in 1 bit to one neighbour after another, parameters in int4 to one of them at every 10th step",
        _FIRST | _TURNS | {"mix_every": 10},
        "turns, 1 bit, x every 10",
    ),
    Rung(
        "home",
        "moments in 1 bit to one neighbour after another, parameters in int4 to one of them at the close of a visit",
        _FIRST | _TURNS | {"mix_every": 0},
        "turns, 1 bit, x at the close",
    ),
)
"""From the most bytes to the fewest."""

PRESETS: Mapping[str, Rung] = {rung.name: rung for rung in LADDER if rung.name in ("lan", "wan", "home")}


@dataclass(frozen=True)
class Weighed:
    """A rung in a run: the time, the bytes that the busiest node sends, and its memory."""

    rung: Rung
    exchange: str
    changes: Mapping[str, Any]
    seconds: Seconds
    sent_bytes: int
    memory: Memory
    fits: bool

    @property
    def share(self) -> float:
        """The time that communication adds, as a share of the computing."""
        return (self.seconds.total - self.seconds.compute) / self.seconds.compute


def weigh(case: Case, keep: Iterable[str] = (), ladder: Sequence[Rung] = LADDER) -> Iterator[Weighed]:
    """Each rung in lockstep, then with overlap, without touching the settings named in ``keep``."""
    kept = set(keep)
    for rung in ladder:
        for exchange in ("lockstep", "overlap"):
            wanted = {**rung.changes(case.settings), "exchange": exchange}
            changes = {name: value for name, value in wanted.items() if name not in kept}
            if "exchange" in kept and exchange != case.settings.exchange:
                continue
            after = {"topology": case.settings.topology, "mix_every": case.settings.mix_every} | changes
            if after["topology"] not in MATCHINGS or after["mix_every"] == 1:
                # What is kept leaves no moment signals that could go to another neighbour.
                changes |= {"partners": "visit"}
            yield _weighed(case.under(**changes), rung, changes)


def _weighed(case: Case, rung: Rung, changes: Mapping[str, Any]) -> Weighed:
    memory, limit = peak_memory(case), case.machine.memory_bytes
    sent = max(traffic.total_bytes for traffic in planned_bytes(case).values())
    fits = limit is None or memory.total_bytes <= limit
    return Weighed(rung, case.settings.exchange, changes, run_seconds(case), sent, memory, fits)


def choose(weighed: Sequence[Weighed], share: float = SHARE) -> Weighed:
    """The first that fits and stays under the share; else of those that fit the one with the least communication; else
    the one that needs the least memory."""
    tests: tuple[Callable[[Weighed], bool], ...] = (lambda w: w.fits and w.share <= share, lambda w: w.fits)
    under, fitting = ([one for one in weighed if test(one)] for test in tests)
    if under:
        return under[0]
    if fitting:
        return min(fitting, key=lambda one: one.share)
    return min(weighed, key=lambda one: one.memory.total_bytes)
