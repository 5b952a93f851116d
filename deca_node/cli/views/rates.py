"""The rows of ``deca-node top``: bytes per second between two looks at a node, and the order of the rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deca_node.daemon.status.facts import MemberRow, PeerRow, Status

LAST: float = -1.0
"""Sorts rows with an unknown figure behind all others."""


@dataclass(frozen=True, kw_only=True)
class TopRow:
    """One peer. ``state`` is the state of this node's stream with the peer, ``member`` its state in the membership.
    ``behind`` counts exchanges. ``why`` says why the peer is not up. ``refusal`` is the last refusal in either
    direction, and ``refused`` its time (unix seconds). Bytes per second are None at the first look and after a restart
    of the node."""

    name: str
    address: str
    state: str
    member: str
    neighbour: bool
    edge: str
    behind: int | None
    rtt_p50_seconds: float | None
    rtt_p99_seconds: float | None
    sent_bytes: int
    received_bytes: int
    sent_bytes_per_second: float | None
    received_bytes_per_second: float | None
    why: str
    refusal: str
    refused: float | None


def top_rows(before: Status | None, now: Status, members: Sequence[MemberRow]) -> list[TopRow]:
    """A row for every peer of ``now``, with its rates since ``before``."""
    seconds = now.time - before.time if before else 0.0
    earlier = {peer.name: peer for peer in before.peers} if before else {}
    states = {member.name: member.state for member in members}
    return [_row(peer, earlier.get(peer.name), seconds, states.get(peer.name, "")) for peer in now.peers]


def _row(peer: PeerRow, earlier: PeerRow | None, seconds: float, member: str) -> TopRow:
    sent, received = sum(peer.sent_bytes.values()), sum(peer.received_bytes.values())
    return TopRow(
        name=peer.name,
        address=peer.address,
        state=peer.state,
        member=member,
        neighbour=peer.neighbour,
        edge=peer.edge,
        behind=peer.behind,
        rtt_p50_seconds=peer.rtt.p50 if peer.rtt else None,
        rtt_p99_seconds=peer.rtt.p99 if peer.rtt else None,
        sent_bytes=sent,
        received_bytes=received,
        sent_bytes_per_second=_rate(sent, earlier.sent_bytes if earlier else None, seconds),
        received_bytes_per_second=_rate(received, earlier.received_bytes if earlier else None, seconds),
        why=peer.why if peer.state != "up" else "",
        refusal=peer.refusal,
        refused=peer.refused,
    )


def _rate(now: int, before: Mapping[str, int] | None, seconds: float) -> float | None:
    if before is None or seconds <= 0 or (grown := now - sum(before.values())) < 0:
        return None
    return grown / seconds


@dataclass(frozen=True)
class Order:
    """One way to sort peers: its key on the keyboard, its column, and the value that is compared. Numbers sort from the
    largest, words from A."""

    key: str
    column: str
    value: Callable[[TopRow], Any]
    largest_first: bool = False


ORDERS: Mapping[str, Order] = {
    "name": Order("n", "peer", lambda row: row.name),
    "state": Order("s", "state", lambda row: (row.state, row.member)),
    "rtt": Order("r", "rtt", lambda row: _known(row.rtt_p50_seconds), True),
    "behind": Order("b", "behind", lambda row: _known(row.behind), True),
    "in": Order("i", "in", lambda row: _known(row.received_bytes_per_second), True),
    "out": Order("o", "out", lambda row: _known(row.sent_bytes_per_second), True),
    "why": Order("w", "last refusal", lambda row: (bool(row.why), _known(row.refused)), True),
}


def ordered(rows: Iterable[TopRow], sort: str, reverse: bool = False) -> list[TopRow]:
    """The rows in one of the ``ORDERS``. Equal rows stand in the order of their names, also under ``reverse``."""
    order = ORDERS[sort]
    by_name = sorted(rows, key=lambda row: row.name)
    return sorted(by_name, key=order.value, reverse=order.largest_first != reverse)


def _known(value: float | None) -> float:
    return LAST if value is None else value
