"""Refusals are counted by reason, and a peer that offends again and again is put in quarantine."""

import logging

import pytest

from deca_node.daemon.links.conduct import Refusals
from deca_node.protocol.errors import WireError
from deca_node.protocol.quarantine import QuarantineRules
from deca_node.protocol.refusals import OTHER

DAMAGED = WireError("checksum", "a chunk of 3 bytes")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def book(clock: Clock) -> Refusals:
    return Refusals(QuarantineRules(first=60.0), clock, lambda: 1_800_000_000.0 + clock.now)


def test_reasons_are_counted_and_silent_ones_are_not() -> None:
    refusals = Refusals()
    for reason in ("size", "size", "stranger", "duplicate", "again", "made-up"):
        refusals.count(reason)
    assert refusals.counts == {"size": 2, "stranger": 1, OTHER: 1}


def test_the_third_offence_leads_to_quarantine(caplog: pytest.LogCaptureFixture) -> None:
    clock, ended = Clock(), list[tuple[str, str]]()
    refusals = book(clock)
    refusals.on_quarantine = lambda peer, why: ended.append((peer, why))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            refusals.blame("south", DAMAGED)
    why = "in quarantine until 08:02:40 UTC, last for checksum: a chunk of 3 bytes"
    assert ended == [("south", why)]
    assert [record.getMessage() for record in caplog.records] == [
        *["south broke the rules (checksum): a chunk of 3 bytes"] * 2,
        f"south is {why}",
    ]
    assert refusals.is_held("south") and not refusals.is_held("north")
    assert refusals.held()["south"].until == 1_800_000_160.0
    with pytest.raises(WireError, match="south is in quarantine here until") as refused:
        refusals.check("south")
    assert refused.value.reason == "quarantined"
    assert (refusals.quarantines, refusals.counts["checksum"]) == (1, 3)


def test_a_quarantine_ends_and_the_next_one_says_its_number() -> None:
    clock = Clock()
    refusals = book(clock)
    for _ in range(3):
        refusals.blame("south", DAMAGED)
    clock.now += 61.0
    refusals.check("south")
    assert refusals.held() == {}
    refusals.blame("south", DAMAGED)
    assert ", the 2nd time, last for checksum" in refusals.held()["south"].why


def test_a_refusal_that_is_no_offence_is_counted_only() -> None:
    refusals = book(Clock())
    for _ in range(9):
        refusals.blame("south", WireError("expired", "the certificate expired"))
    assert not refusals.is_held("south") and refusals.counts == {"expired": 9}
