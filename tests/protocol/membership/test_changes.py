"""Every row in the table of a member's states is reached, and every change is told as the table means it."""

from dataclasses import replace

import pytest

from deca_node.protocol.membership import messages
from deca_node.protocol.membership.changes import COMES, GOES, MEMBER_STATES, UNKNOWN, Change, report
from deca_node.protocol.membership.facts import MemberState
from deca_node.protocol.membership.profiles import LAN
from deca_node.protocol.membership.rumours import Rumour
from tests.protocol.conftest import Seen
from tests.protocol.membership.test_membership import ALIVE, DEAD, LEFT, SUSPECT, B, C, Member

FORGETFUL = replace(LAN, forget=0.1)
PAIRS = [(before, news) for before, row in MEMBER_STATES.rows.items() for news in row]


def member_with(before: MemberState | None) -> Member:
    """Member a, which believes that b is in this state."""
    member = Member(C, profile=FORGETFUL)
    if before is not UNKNOWN:
        member.receive(B, messages.Gossip())
        member.receive(C, messages.Gossip(), Rumour(replace(B, state=before), "c"))
    assert before is UNKNOWN or member.state("b") is before
    return member


@pytest.mark.parametrize(("before", "news"), PAIRS)
def test_every_change_is_reached(before: MemberState | None, news: MemberState | None, seen: Seen) -> None:
    member = member_with(before)
    if news is UNKNOWN:
        member.wait(2.0 * LAN.retry_pause)
        assert "b" not in member.machine.members
    else:
        member.receive(C, messages.Gossip(), Rumour(replace(B, incarnation=1, state=news), "c"))
        assert member.state("b") is news
    assert ("member", before, news) in seen


@pytest.mark.parametrize(("before", "news"), [pair for pair in PAIRS if pair[1] is not UNKNOWN])
def test_what_comes_and_what_goes_changes_the_view(before: MemberState | None, news: MemberState) -> None:
    member = member_with(before)
    present = "b" in member.machine.view()
    said = member.receive(C, messages.Gossip(), Rumour(replace(B, incarnation=1, state=news), "c"))
    change = MEMBER_STATES.after(before, news)
    assert ("b" in member.machine.view()) == (change in COMES or (present and change not in GOES))
    assert [c for c in said if isinstance(c, messages.Changed)] != [] or change not in COMES | GOES
    told = [c for c in said if isinstance(c, messages.MemberUp | messages.MemberDown | messages.MemberLeft)]
    assert len(told) == (change in COMES | GOES)


def test_the_death_of_an_unknown_member_is_no_news() -> None:
    member = member_with(UNKNOWN)
    member.receive(C, messages.Gossip(), Rumour(replace(B, state=DEAD), "c"))
    assert "b" not in member.machine.members


@pytest.mark.parametrize("state", [ALIVE, SUSPECT, DEAD, LEFT])
def test_a_rival_of_a_forgotten_holder_is_known_only_if_it_is_there(state: MemberState) -> None:
    """The holder of a name is given up and forgotten while it is challenged. A rival that is gone, too, is no news."""
    member = member_with(ALIVE)
    rival = replace(B, boot=200, address="new:1", state=state)
    member.receive(C, messages.Gossip(), Rumour(rival, "c"))
    member.receive(C, messages.Gossip(), Rumour(replace(B, state=DEAD), "c"))
    member.wait(1.6 * LAN.retry_pause)
    assert "b" not in member.machine.members
    member.wait(LAN.challenge)
    assert ("b" in member.machine.view()) == (state in (ALIVE, SUSPECT))


@pytest.mark.parametrize(
    ("accusers", "why"),
    [
        ({"c"}, "it did not answer c"),
        ({"d", "c"}, "it did not answer c, d"),
        ({""}, "another member says that it does not answer"),
        (set(), "another member says that it does not answer"),
    ],
)
def test_a_death_is_told_with_the_members_that_found_the_dead_one_silent(accusers: set[str], why: str) -> None:
    down = report(Change.GIVEN_UP, B, replace(B, state=DEAD), accusers)
    assert isinstance(down, messages.MemberDown)
    assert down.sentence == f"b is given up: {why}"
