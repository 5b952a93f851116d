"""What happens to the nodes, and when: a sequence that follows from its seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NAMES = ("north", "east", "south", "west")
WITNESS = "north"
"""This node's process is never ended. So the memory of one process is watched from the start to the end."""
GUESTS = tuple(f"guest-{number}" for number in range(1, 31))
PAUSE_SECONDS = (3.0, 15.0)
KINDS = {
    "kill": 4,
    "kill_trainer": 2,
    "stop": 2,
    "pause": 4,
    "part": 3,
    "slow": 3,
    "full": 3,
    "clock": 2,
    "renew": 2,
    "guest": 2,
    "reread": 1,
}
"""How often each kind is drawn, relative to the others."""


@dataclass(frozen=True)
class Fault:
    """What happens: ``after`` seconds from the end of the one before it, to ``names``, for ``seconds``; ``amount`` is a
    number that the kind needs."""

    kind: str
    after: float
    names: tuple[str, ...]
    seconds: float = 0.0
    amount: float = 0.0


def faults(seed: int) -> Iterator[Fault]:
    """An endless sequence. The first ones are one of each kind, so that a short soak meets them all."""
    rng = random.Random(f"soak:{seed}")
    first = list(KINDS)
    rng.shuffle(first)
    for kind in first:
        yield _drawn(kind, rng)
    while True:
        yield _drawn(rng.choices(list(KINDS), list(KINDS.values()))[0], rng)


def _drawn(kind: str, rng: random.Random) -> Fault:
    ends_the_process = kind in ("kill", "kill_trainer", "stop")
    name = rng.choice([name for name in NAMES if name != WITNESS or not ends_the_process])
    given: dict[str, Any] = {"after": rng.uniform(*PAUSE_SECONDS), "names": (name,)}
    match kind:
        case "kill" | "stop":
            given["seconds"] = rng.uniform(0.0, 8.0)
        case "pause":
            given["seconds"] = rng.choice([rng.uniform(0.5, 2.0), rng.uniform(5.0, 25.0)])
        case "part":
            given |= {"names": tuple(rng.sample(NAMES, rng.choice([1, 2]))), "seconds": rng.uniform(4.0, 30.0)}
        case "slow":
            given |= {"seconds": rng.uniform(5.0, 20.0), "amount": rng.choice([5_000.0, 20_000.0, 100_000.0])}
        case "full":
            given["seconds"] = rng.uniform(5.0, 20.0)
        case "clock":
            # Less far back than certificates are valid before they are made, and less far ahead than they last.
            given["amount"] = rng.choice([0.0, -200.0, 3_600.0, 86_400.0])
    return Fault(kind, **given)
