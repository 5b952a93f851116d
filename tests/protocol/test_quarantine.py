"""The quarantine as a readable transcript: the time, the event and the outcome, on a fake clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.quarantine import PEERS_MAX, Quarantine, QuarantineEntry, QuarantineRules
from deca_node.protocol.refusals import OTHER, REASONS, is_offence, label

RULES = QuarantineRules(first=60.0)

TRANSCRIPT = """
    # three offences, however far apart within an hour
    0       south offends checksum      ->
    100     south offends size          ->
    200     south offends wild-norm     -> until 260, the first time, for wild-norm
    # what was under way comes late and adds nothing; others are not concerned
    201     south offends checksum      ->
    201     north is welcome
    259     south is held
    260     south is welcome
    # one more is enough now, and each time lasts twice as long
    300     south offends flood         -> until 420, time 2, for flood
    420     south offends flood         -> until 660, time 3, for flood
    700     south offends flood         -> until 1180, time 4, for flood
    # an hour after its release without an offence all is forgotten
    4780    south offends flood         ->
    4781    south offends flood         ->
    4782    south offends flood         -> until 4842, the first time, for flood
    # what may befall the honest is never held against them
    5000    west offends mismatch       ->
    5001    west offends expired        ->
    5002    west offends identity       ->
    5003    west offends stale-boot     ->
    5004    west is welcome
"""


def test_the_transcript() -> None:
    records = Quarantine(RULES)
    lines = [line.split("#")[0].strip() for line in TRANSCRIPT.splitlines()]
    for line in filter(None, lines):
        now, peer, verb, *rest = line.split()
        if verb == "is":
            assert (records.held(peer, float(now)) is not None) == (rest == ["held"]), line
            continue
        held = records.offended(peer, rest[0], "said so", float(now))
        told = line.partition("->")[2].strip()
        times = held and ("the first time" if held.times == 1 else f"time {held.times}")
        assert told == (f"until {held.until:g}, {times}, for {held.reason}" if held else ""), line


def test_it_never_lasts_longer_than_the_limit() -> None:
    records, now, lasted = Quarantine(QuarantineRules(first=100.0, longest=900.0)), 0.0, []
    for _ in range(12):
        held = records.offended("south", "flood", "", now)
        if held:
            lasted.append(held.until - now)
            now = held.until
    assert lasted[:5] == [100.0, 200.0, 400.0, 800.0, 900.0] and max(lasted) == 900.0


def test_nobody_is_held_where_it_is_turned_off() -> None:
    records = Quarantine(QuarantineRules(first=0.0))
    assert not any(records.offended("south", "flood", "", float(now)) for now in range(100))
    assert records.all_held(100.0) == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 500), st.sampled_from(sorted(REASONS))), max_size=60))
def test_whoever_behaves_for_long_enough_is_welcome_again(story: list[tuple[str, float, str]]) -> None:
    """Whatever happened before, a peer is released after at most an hour and has no record after two."""
    records, now = Quarantine(RULES), 0.0
    for peer, pause, reason in story:
        now += pause
        held = records.offended(peer, reason, "", now)
        assert held is None or (is_offence(reason) and now < held.until <= now + records.rules.longest)
    assert records.all_held(now + records.rules.longest) == {}
    later = now + records.rules.longest + records.rules.forgiven
    assert records.offended("a", "flood", "", later) is None, "one offence alone is none too many"


def test_records_are_bounded() -> None:
    records = Quarantine(RULES)
    for number in range(PEERS_MAX + 100):
        records.offended(f"n{number}", "flood", "", 0.0)
    assert len(records._records) == PEERS_MAX


@pytest.mark.parametrize(("reason", "counted"), [("flood", "flood"), ("made-up", OTHER), ("", OTHER)])
def test_labels_are_bounded(reason: str, counted: str) -> None:
    assert label(reason) == counted
    assert not is_offence("made-up")


def test_a_quarantine_says_until_when_why_and_the_how_manieth_it_is() -> None:
    records = Quarantine(QuarantineRules(first=60.0, longest=100.0, offences=2, forgiven=50.0))
    assert records.offended("south", "checksum", "its sum is wrong", 10.0) is None
    held = records.offended("south", "size", "it is too long", 11.0)
    assert held == QuarantineEntry(71.0, "size", 1, "it is too long")
    assert records.all_held(70.9) == {"south": held} and records.all_held(71.0) == {}
    second = records.offended("south", "size", "again", 120.9)
    assert second == QuarantineEntry(220.9, "size", 2, "again"), "twice as long, and 100 s at most"
    assert records.offended("south", "size", "and again", 271.0) is None, "50 s after its release all is forgotten"


def test_offences_before_a_quarantine_are_not_counted_towards_the_next() -> None:
    records = Quarantine(QuarantineRules(first=0.5, offences=3, forgiven=1e9))
    times = [records.offended("south", "size", "long", float(now)) for now in range(6)]
    assert [entry and entry.times for entry in times] == [None, None, 1, 2, 3, None]
    assert [entry and entry.until for entry in times] == [None, None, 2.5, 4.0, 6.0, None]
    never = Quarantine(QuarantineRules(first=0.0, offences=1))
    assert never.offended("south", "size", "long", 1.0) is None
