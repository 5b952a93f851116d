"""What members tell each other about their progress, so that any node's page shows the whole run.

The news ride along with membership's packets. Each packet has the sender's own news and those of a few other members,
least told first, so they reach all members in a few rounds of probes, also members without a link between them.

A member can only tell the truth about itself by its own word: news that others pass on may be made up. So they are
shown to people and nothing else follows from them.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deca_node.protocol.membership.facts import MemberProgress

PASSED_ON_MAX = 7
"""The most other members whose news go out with one packet: about 100 bytes each."""
MEMBERS_MAX = 1024
"""Of more members than this, no news are kept."""


@dataclass
class _Heard:
    progress: MemberProgress
    since: float
    told: int = 0


@dataclass(frozen=True)
class Heard:
    """The newest news of a member, and how many seconds ago this node has heard them."""

    progress: MemberProgress
    age_seconds: float


class Hearsay:
    """The news of all members but this one. ``known`` says whose news are kept."""

    def __init__(self, known: Callable[[str], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self.own: Callable[[], MemberProgress | None] = lambda: None
        """Gives this node's own news."""
        self._known = known
        self._clock = clock
        self._heard: dict[str, _Heard] = {}

    def take(self, told: tuple[MemberProgress, ...], own_name: str) -> None:
        """Take the news in a packet. Older ones than those at hand, and those of strangers, are dropped."""
        for progress in told:
            held = self._heard.get(progress.name)
            newer = progress.newer_than(held.progress if held else None)
            if newer and progress.name != own_name and self._known(progress.name) and len(self._heard) < MEMBERS_MAX:
                self._heard[progress.name] = _Heard(progress, self._clock())

    def pick(self) -> tuple[MemberProgress, ...]:
        """The news that go out with the next packet."""
        for gone in [name for name in self._heard if not self._known(name)]:
            del self._heard[gone]
        own = self.own()
        others = sorted(self._heard.values(), key=lambda heard: heard.told)[:PASSED_ON_MAX]
        for heard in others:
            heard.told += 1
        return (*([own] if own else []), *(heard.progress for heard in others))

    def all(self) -> Mapping[str, Heard]:
        """The newest news by member."""
        now = self._clock()
        return {name: Heard(held.progress, now - held.since) for name, held in self._heard.items()}
