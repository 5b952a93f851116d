"""The wire of ``bench.links``: its arithmetic of rates, distances and queues. Making networks needs root, and is not
tested here."""

import os

import pytest

from bench.links.wire import QUEUE_SECONDS, Line, NotPermittedError, Wire, check_permitted

SECOND_BYTES = 1_000_000


@pytest.fixture
def wire() -> Wire:
    """Three lines of 8 Mbit/s, so of a million bytes a second, 20 ms apart."""
    wire = Wire(3, 8.0 * SECOND_BYTES, 0.02)
    wire.lines = [Line(f"n{number}", f"10.77.0.{number + 1}", number) for number in range(3)]
    return wire


def test_a_packet_takes_its_time_and_its_way(wire: Wire) -> None:
    a, b, _ = wire.lines
    assert wire._arrival(a, b, 10_000, now=5.0) == pytest.approx(5.0 + 0.01 + 0.02)


def test_packets_follow_each_other_at_the_rate_of_the_line(wire: Wire) -> None:
    a, b, c = wire.lines
    arrivals = [wire._arrival(a, to, 10_000, now=5.0) for to in (b, c, b)]
    assert arrivals == pytest.approx([5.03, 5.04, 5.05])


def test_two_senders_share_the_line_of_one_receiver(wire: Wire) -> None:
    a, b, c = wire.lines
    arrivals = [wire._arrival(source, c, 10_000, now=5.0) for source in (a, b, a, b)]
    assert arrivals == pytest.approx([5.03, 5.04, 5.05, 5.06])


def test_both_ways_of_a_line_are_as_fast(wire: Wire) -> None:
    a, b, _ = wire.lines
    assert wire._arrival(a, b, 10_000, now=5.0) == wire._arrival(b, a, 10_000, now=5.0)


def test_what_does_not_fit_the_queue_is_lost(wire: Wire) -> None:
    a, b, _ = wire.lines
    sent = [wire._arrival(a, b, 10_000, now=5.0) for _ in range(20)]
    assert [arrival is None for arrival in sent] == [False] * 10 + [True] * 10
    assert wire.lost == 10 and QUEUE_SECONDS == 0.1
    assert wire._arrival(a, b, 10_000, now=6.0) is not None


def test_without_permission_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: "/sbin/ip")
    with pytest.raises(NotPermittedError, match="need root"):
        check_permitted()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NotPermittedError, match="there is no command ip"):
        check_permitted()
