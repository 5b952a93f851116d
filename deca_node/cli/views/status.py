"""A node's status on a terminal: a few lines of facts, and a table of peers.

Names and sentences of peers come from other machines, so all control characters are taken out of them.
"""

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deca_node.cli.views.text import duration, printable, size_text
from deca_node.daemon.status.facts import CheckpointRow, MemberRow, PeerRow, Position, RankRow, Spread, Status

STATE_STYLES = {"up": "green", "alive": "green", "suspect": "yellow", "refused": "red", "dead": "red"}
STATE_STYLES |= {"quarantined": "red"}

IN_GOOD_ORDER = frozenset({"loading", "duplicate"})
"""Refusals that every start brings: of callers that came before the model was loaded, and of the second of two calls
between the same nodes. They say nothing about the peer, and the metrics have them."""

SLOWER = 1.1
"""A rank that takes so many times as long as the fastest one is worth a word: the others wait for it in every step."""

BOOT_DIGITS = 8
"""Enough digits to tell two starts of a node apart; ``--json`` has the whole number."""


def status_view(status: Status) -> Group:
    """The whole status."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, text in _facts(status):
        facts.add_row(label, plain(text))
    return Group(facts, _peers(status.peers), *_troubles(status.peers, status.time)) if status.peers else Group(facts)


def members_view(members: Sequence[MemberRow]) -> Group:
    """All members that the node knows, and the quarantines that it has imposed."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("member", "address", "state", "counts from", "boot", "incarnation"):
        table.add_column(heading, overflow="fold")
    for member in members:
        since = "not yet" if member.ready_from < 0 else f"activation {member.ready_from}"
        state = _state(member.state)
        facts = (since, f"{member.boot:x}"[-BOOT_DIGITS:], str(member.incarnation))
        table.add_row(plain(member.name), plain(member.address), state, *facts)
    held = [plain(f"  {member.name} is in quarantine {member.quarantine}") for member in members if member.quarantine]
    return Group(table, *held)


def plain(text: str) -> Text:
    """Text without control characters, and without markup."""
    return Text(printable(text))


def _facts(status: Status) -> Iterator[tuple[str, str]]:
    fingerprint = f", fingerprint {status.fingerprint[:16]}" if status.fingerprint else ""
    yield "node", f"{status.name}, up for {duration(status.uptime_seconds)} (deca-node {status.version})"
    yield "run", f"{status.run}{fingerprint}"
    stage = f" ({status.stage})" if status.stage else ""
    yield "phase", f"{status.phase}{stage}"
    yield "now", status.doing or f"waiting for {status.awaits}"
    if status.position:
        yield "position", _position(status.position)
    if status.steps_per_second is not None:
        left = "" if status.remaining_seconds is None else f", about {duration(status.remaining_seconds)} to go"
        yield "pace", f"{status.steps_per_second:.3g} steps/s{left}"
    if status.ranks:
        yield "ranks", ("sharded: " if status.sharded else "") + _ranks(status.ranks)
    if losses := list(_losses(status)):
        yield "loss", ", ".join(losses)
    if (epsilon := status.figures.get("privacy_epsilon")) is not None:
        yield "privacy", f"epsilon {epsilon:.3g} spent at delta {status.figures.get('privacy_delta'):g}, for one record"
    if status.consensus_distance is not None:
        yield "consensus", f"distance {status.consensus_distance:.2e}"
    yield "checkpoint", _checkpoint(status.checkpoint)
    if status.members:
        yield "members", ", ".join(f"{count} {state}" for state, count in sorted(status.members.items()))
    if gone := [peer.name for peer in status.peers if peer.member == "dead"]:
        yield "gone", f"{', '.join(gone)}: given up; training goes on among the others, and no node waits"
    if status.loop_lag:
        yield "network", f"event loop late by {_spread(status.loop_lag)} (p50 / p99)"
    if status.relays:
        said = (f"{' and '.join(row.pair)} ({size_text(row.bytes)})" for row in status.relays)
        yield "relays for", ", ".join(said)
    if refused := {reason: n for reason, n in status.refusals.items() if reason not in IN_GOOD_ORDER}:
        yield "refused", ", ".join(f"{count} for {reason}" for reason, count in sorted(refused.items()))
    if status.alone:
        yield "own model", f"the tuned model is not the others': {status.alone}"
    if status.warning:
        yield "warning", status.warning


def _position(at: Position) -> str:
    where = f"round {at.round}/{at.rounds}" if at.round <= at.rounds else "final flush"
    done = 100 * at.done / at.total if at.total else 100.0
    block = f"block {at.block}/{at.blocks} ({at.block_name})"
    return f"{where}, {block}, step {at.step}/{at.steps}; {at.done} of {at.total} steps, {done:.1f} %"


def _ranks(rows: Sequence[RankRow]) -> str:
    """Each rank's device, time of its share of a step, and memory; the slowest is named if it takes a tenth longer than
    the fastest."""
    seconds = [row.compute_seconds for row in rows if row.compute_seconds is not None]
    slow = max(seconds) if seconds and max(seconds) > SLOWER * min(seconds) else None
    return "; ".join(_rank(row, slow=row.compute_seconds is not None and row.compute_seconds == slow) for row in rows)


def _rank(row: RankRow, *, slow: bool) -> str:
    parts = [f"{row.rank} on {row.device}"]
    if row.compute_seconds is not None:
        parts.append(f"{row.compute_seconds:.3g} s{' (slowest)' if slow else ''}")
    if row.peak_bytes is not None:
        parts.append(f"{size_text(row.peak_bytes)} at most")
    return ", ".join(parts)


def _losses(status: Status) -> Iterator[str]:
    if status.train_loss is not None:
        yield f"{status.train_loss:.4f} in training"
    if status.heldout_loss is not None:
        yield f"{status.heldout_loss:.4f} held out ({status.heldout_when})"
    if status.heldout_accuracy is not None and status.heldout_macro_f1 is not None:
        yield f"accuracy {status.heldout_accuracy:.3f}, macro-F1 {status.heldout_macro_f1:.3f}"


def _checkpoint(row: CheckpointRow) -> str:
    failed = f"; {row.failures} could not be written, the latest because {row.failure}" if row.failures else ""
    if row.age_seconds is None:
        return f"none yet since this start{failed}"
    return f"at activation {row.activation} step {row.step}, {duration(row.age_seconds)} ago{failed}"


def _peers(peers: Iterable[PeerRow]) -> Table:
    """The peers in at most eighty columns. Addresses stand in the list of troubles and in the list of members."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("peer", overflow="fold")
    for heading in ("state", "edge"):
        table.add_column(heading, no_wrap=True)
    for heading in ("behind", "rtt p50 / p99", "sent", "received"):
        table.add_column(heading, justify="right", no_wrap=True)
    for peer in peers:
        edge = peer.edge or ("none now" if peer.neighbour else "no neighbour")
        behind = "" if peer.behind is None else str(peer.behind)
        rtt = _spread(peer.rtt) if peer.rtt else ""
        sent, received = (size_text(sum(kinds.values())) for kinds in (peer.sent_bytes, peer.received_bytes))
        table.add_row(plain(peer.name), _state(peer.state), edge, behind, rtt, sent, received)
    return table


def _troubles(peers: Iterable[PeerRow], now: float) -> Iterator[Text]:
    for peer in peers:
        if peer.relay:
            yield plain(f"  {peer.name} is reached through {peer.relay}: {size_text(peer.relayed_bytes)} so far")
        if peer.why and peer.state != "up":
            yield plain(f"  {peer.name} at {peer.address}: {peer.why.removeprefix(f'{peer.name} is ')}")
        if peer.refusal and peer.refused is not None:
            ago = duration(max(now - peer.refused, 0.0))
            yield plain(f"  {peer.name} was last refused {ago} ago: {peer.refusal}")


def _state(state: str) -> Text:
    return Text(plain(state).plain, style=STATE_STYLES.get(state, ""))


def _spread(spread: Spread) -> str:
    return f"{spread.p50 * 1000:.1f} / {spread.p99 * 1000:.1f} ms"
