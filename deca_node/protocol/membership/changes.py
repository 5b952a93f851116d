"""What happens to a member when newer facts about it win: the table of its states, and what is said about each change.

docs/MEMBERSHIP.md has the picture of it. A suspected member still counts as present. News may overtake each other, so
nearly every state can follow every other.
"""

from collections.abc import Iterable
from enum import StrEnum

from deca_node.protocol.membership.facts import MemberFacts, MemberState
from deca_node.protocol.membership.messages import MemberDown, MemberLeft, MembershipCommand, MemberUp
from deca_node.protocol.transitions import Transitions

UNKNOWN = None
"""The state of a member of which this one has no facts."""


class Change(StrEnum):
    """What newer facts mean for a member, by its state before them."""

    JOINED = "it joins"
    RENEWED = "it says something new of itself"
    ACCUSED = "a probe failed, here or elsewhere"
    REFUTED = "it refutes the suspicion"
    GIVEN_UP = "T(C) has passed, here or elsewhere"
    GONE = "it leaves for good"
    BACK = "it is back, in a greater incarnation or boot"
    NOTED = "other news of a member that is gone"
    FORGOTTEN = "a day has passed"


_ALIVE, _SUSPECT, _DEAD, _LEFT = MemberState

MEMBER_STATES: Transitions[MemberState | None, MemberState | None, Change] = Transitions(
    "member",
    {
        # The death of an unknown member is no news at all.
        UNKNOWN: {_ALIVE: Change.JOINED, _SUSPECT: Change.JOINED, _LEFT: Change.NOTED},
        _ALIVE: {_ALIVE: Change.RENEWED, _SUSPECT: Change.ACCUSED, _DEAD: Change.GIVEN_UP, _LEFT: Change.GONE},
        _SUSPECT: {_ALIVE: Change.REFUTED, _SUSPECT: Change.ACCUSED, _DEAD: Change.GIVEN_UP, _LEFT: Change.GONE},
        _DEAD: {
            _ALIVE: Change.BACK,
            _SUSPECT: Change.BACK,
            _DEAD: Change.NOTED,
            _LEFT: Change.NOTED,
            UNKNOWN: Change.FORGOTTEN,
        },
        _LEFT: {_ALIVE: Change.BACK, _SUSPECT: Change.BACK, _DEAD: Change.NOTED, _LEFT: Change.NOTED},
    },
)

COMES = frozenset({Change.JOINED, Change.BACK})
GOES = frozenset({Change.GIVEN_UP, Change.GONE})


def report(
    change: Change, before: MemberFacts | None, facts: MemberFacts, accusers: Iterable[str]
) -> MembershipCommand | None:
    """What the daemon is told about a change; None where nothing is. ``accusers`` found the member silent."""
    name = facts.name
    match change:
        case Change.JOINED:
            return MemberUp(name, f"{name} at {facts.address} has joined")
        case Change.BACK:
            return MemberUp(name, f"{name} at {facts.address} is back")
        case Change.GIVEN_UP:
            return MemberDown(name, f"{name} is given up: {_why_down(accusers)}")
        case Change.GONE:
            return MemberLeft(name, f"{name} has left the run")
        case Change.RENEWED | Change.ACCUSED | Change.REFUTED if before is not None and before.boot != facts.boot:
            return MemberUp(name, f"{name} has restarted, at {facts.address}")
    return None


def _why_down(accusers: Iterable[str]) -> str:
    # A list of members tells of a suspicion without saying who began it.
    names = sorted(filter(None, accusers))
    return f"it did not answer {', '.join(names)}" if names else "another member says that it does not answer"
