"""What ``deca-node plan --choose`` prints: the ladder of exchanges, the one chosen, and what it costs in loss."""

from collections.abc import Mapping, Sequence
from typing import Any

from deca_node.protocol.planning.presets import Weighed
from deca_node.protocol.planning.units import bytes_text, seconds_text


def choice_document(weighed: Sequence[Weighed], chosen: Weighed, share: float) -> dict[str, Any]:
    """The choice with exact numbers."""
    return {
        "share": share,
        "chosen": chosen.rung.name,
        "exchange": chosen.exchange,
        "settings": dict(chosen.changes),
        "reached": chosen.fits and chosen.share <= share,
        "ladder": [_row(one) for one in weighed],
    }


def _row(one: Weighed) -> dict[str, Any]:
    loss = {task: {"percent": percent, "seeds": seeds} for task, (percent, seeds) in one.rung.loss_percent.items()}
    return {
        "name": one.rung.name,
        "exchange": one.exchange,
        "means": one.rung.means,
        "sent_bytes": one.sent_bytes,
        "run_seconds": one.seconds.total,
        "communication_share": one.share,
        "memory_bytes": one.memory.total_bytes,
        "fits": one.fits,
        "loss": loss,
    }


def sentence(document: Mapping[str, Any]) -> str:
    """The choice in words."""
    row = _chosen(document)
    says = f"Chosen: {row['name']}, {row['exchange']}: {row['means']}."
    cost = f" Communication adds {row['communication_share']:.0%} to the computing"
    if document["reached"]:
        return f"{says}{cost}, and may add {document['share']:.0%}. {loss_words(row)}"
    why = "more than the given share, and no rung adds less" if row["fits"] else "and no rung fits the given memory"
    return f"{says}{cost}: {why}. More inner_steps or a larger batch_size make it less. {loss_words(row)}"


def loss_words(row: Mapping[str, Any]) -> str:
    """The measured cost in loss; a warning where nothing was measured."""
    if not row["loss"]:
        return "Its cost in loss was not measured."
    found = [f"{cost['percent']:+.1f} % on {task} ({cost['seeds']} seeds)" for task, cost in row["loss"].items()]
    return f"Loss against the defaults, on tiny models: {', '.join(found)}."


def table_rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The ladder as text: name, exchange, bytes, run, communication, memory, loss."""
    return [
        (
            ("> " if row is _chosen(document) else "") + row["name"],
            row["exchange"],
            bytes_text(row["sent_bytes"]),
            seconds_text(row["run_seconds"]),
            f"{row['communication_share']:.0%}",
            bytes_text(row["memory_bytes"]) + ("" if row["fits"] else ", too much"),
            ", ".join(f"{cost['percent']:+.1f} %" for cost in row["loss"].values()) or "not measured",
        )
        for row in document["ladder"]
    ]


HEADINGS = ("exchange", "mode", "sent by a node", "run", "communication", "memory", "loss")


def _chosen(document: Mapping[str, Any]) -> Any:
    found = (document["chosen"], document["exchange"])
    return next(row for row in document["ladder"] if (row["name"], row["exchange"]) == found)
