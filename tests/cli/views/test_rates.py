"""The rows of ``top``: rates between two looks, and the order of rows."""

import dataclasses

import pytest

from deca_node.cli.views.rates import ORDERS, ordered, top_rows
from tests.daemon.web.fake_admin import MEMBERS, STATUS

LATER = dataclasses.replace(
    STATUS,
    time=STATUS.time + 2.0,
    peers=(
        dataclasses.replace(
            STATUS.peers[0], sent_bytes={"update": 7 * 2**20, "control": 100}, received_bytes={"update": 5 * 2**20}
        ),
        STATUS.peers[1],
    ),
)
"""``STATUS`` two seconds and 2 MiB later."""


def test_rates_are_those_between_two_looks() -> None:
    south, west = top_rows(STATUS, LATER, MEMBERS)
    assert (south.sent_bytes_per_second, south.received_bytes_per_second) == (2**20, 2**19)
    assert (south.member, south.rtt_p50_seconds, south.behind) == ("suspect", 0.0012, 1)
    assert (west.member, west.rtt_p50_seconds, west.why) == ("", None, "rounds is 4 at north and 5 at west")


def test_no_rates_at_the_first_look_and_after_a_restart() -> None:
    assert top_rows(None, STATUS, ())[0].sent_bytes_per_second is None
    assert top_rows(LATER, dataclasses.replace(STATUS, time=LATER.time + 1), ())[0].sent_bytes_per_second is None


@pytest.mark.parametrize("sort", list(ORDERS))
def test_every_order_and_its_reverse(sort: str) -> None:
    rows = top_rows(STATUS, LATER, MEMBERS)
    names = [row.name for row in ordered(rows, sort)]
    assert names == (["west", "south"] if sort in ("state", "why") else ["south", "west"])
    assert [row.name for row in ordered(rows, sort, reverse=True)] == names[::-1]
