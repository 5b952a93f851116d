"""The table of ``deca-node top``: a line about the node, and a row for each peer."""

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deca_node.cli.views.rates import ORDERS, TopRow
from deca_node.cli.views.status import STATE_STYLES, plain
from deca_node.cli.views.text import size_text
from deca_node.daemon.status.facts import Status


def top_view(status: Status, rows: Sequence[TopRow], sort: str, reverse: bool) -> Group:
    """The whole screen. An arrow marks the column that the rows are sorted by."""
    table = Table(box=box.SIMPLE_HEAD, expand=True)
    marked = ORDERS[sort].column
    arrow = "▼" if ORDERS[sort].largest_first != reverse else "▲"
    for heading in ("peer", "state", "member", "edge", "behind", "rtt", "in", "out", "last refusal"):
        right = heading in ("behind", "rtt", "in", "out")
        text = f"{heading} {arrow}" if heading == marked else heading
        wide = heading == "last refusal"
        table.add_column(
            text, justify="right" if right else "left", no_wrap=not wide, overflow="fold", ratio=1 if wide else None
        )
    for row in rows:
        table.add_row(*_cells(row))
    return Group(plain(_headline(status)), table)


def _headline(status: Status) -> str:
    done = f"{100 * status.position.done / status.position.total:.1f} %" if status.position else "not begun"
    rate = "" if status.steps_per_second is None else f", {status.steps_per_second:.3g} steps/s"
    up = sum(peer.state == "up" for peer in status.peers)
    peers = f"{up} of {len(status.peers)} peers up"
    return f"{status.name}: {done}{rate}; {peers}; {status.doing or status.phase}"


def _cells(row: TopRow) -> tuple[Text, ...]:
    edge = row.edge or ("none now" if row.neighbour else "no neighbour")
    rtt = "" if row.rtt_p50_seconds is None else f"{row.rtt_p50_seconds * 1000:.1f} ms"
    behind = "" if row.behind is None else str(row.behind)
    rates = (row.received_bytes_per_second, row.sent_bytes_per_second)
    texts = [edge, behind, rtt, *("" if rate is None else f"{size_text(rate)}/s" for rate in rates)]
    states = (Text(plain(state).plain, style=STATE_STYLES.get(state, "")) for state in (row.state, row.member))
    return (plain(row.name), *states, *map(plain, texts), plain(row.why or row.refusal))
