"""The model card of a tuned model, written from the run: what was tuned, by how many parties, how, and how well.

A card is public. It names no party, no address and no path, and quotes no record: parties are a number, and losses are
those of the party that writes the card.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deca_node import __version__
from deca_node.api.records import Evaluation, Step, read_records
from deca_node.protocol.agreed.run import RunSettings
from deca_node.storage.folder import FINAL, METRICS, agreed_fields, alone_because
from deca_node.storage.jsons import UNFIT, parse

LEFT_OUT = frozenset({"run_name", "model", "blocks", "classes", "edges"})
"""Agreed fields that are no settings, or that may hold names of parties."""


@dataclass(frozen=True)
class RunFacts:
    """What a node's folder says of its run. ``parties`` is None where that is not noted; ``epsilon`` and ``delta`` are
    the cost of this party's private gradients, None if there was no noise."""

    agreed: Mapping[str, str]
    parties: int | None
    steps: int
    evaluations: tuple[Evaluation, ...]
    epsilon: float | None
    delta: float | None
    alone: str
    hub_model: str


def facts_of(folder: Path) -> RunFacts:
    """Read a node's folder."""
    steps, last, evaluations = 0, None, []
    for record in read_records(folder / METRICS):
        match record:
            case Step():
                steps, last = max(steps, record.done), record
            case Evaluation():
                evaluations.append(record)
    figures = last.figures if last else {}
    return RunFacts(
        agreed=agreed_fields(folder),
        parties=_parties(folder),
        steps=steps,
        evaluations=tuple(evaluations),
        epsilon=figures.get("privacy_epsilon"),
        delta=figures.get("privacy_delta"),
        alone=alone_because(folder / FINAL),
        hub_model=_hub_model(folder),
    )


def model_card(title: str, facts: RunFacts, base_model: str, license_: str) -> str:
    """The text of README.md for the hub, with the head that the hub reads."""
    parts = ["\n".join(_head(facts, base_model, license_)), f"# {title}", _what(facts, base_model)]
    parts += ["## Training", *_training(facts), "## Privacy", _privacy(facts)]
    return "\n\n".join(parts) + "\n"


def _head(facts: RunFacts, base_model: str, license_: str) -> Iterator[str]:
    # JSON strings are YAML strings, whatever is in them.
    classes = facts.agreed.get("task") == "classification"
    yield "---"
    if base_model:
        yield f"base_model: {json.dumps(base_model)}"
    if license_:
        yield f"license: {json.dumps(license_)}"
    yield "library_name: transformers"
    yield f"pipeline_tag: {'text-classification' if classes else 'text-generation'}"
    yield "tags:\n- deca-node\n- decentralized-training"
    yield "---"


def _what(facts: RunFacts, base_model: str) -> str:
    of = f"`{base_model}`" if base_model else "A language model"
    if facts.alone:
        return (
            f"{of} was tuned by one party with deca-node {__version__}. Other parties took part in the run, and this "
            "copy is not theirs."
        )
    who = (
        "several parties" if facts.parties is None else "1 party" if facts.parties == 1 else f"{facts.parties} parties"
    )
    return (
        f"{of} was tuned by {who} with deca-node {__version__}, without a server. All parameters were tuned. Each "
        "party's records stayed on its own machine; the parties exchanged updates of the model's blocks."
    )


def _training(facts: RunFacts) -> Iterator[str]:
    rows = [("parties", str(facts.parties) if facts.parties else "not noted"), ("steps", f"{facts.steps:,}")]
    per = "record" if facts.agreed.get("task") == "classification" else "token"
    if facts.evaluations:
        first, last = facts.evaluations[0], facts.evaluations[-1]
        rows.append(("held-out loss before", f"{first.loss:.4f} nats per {per}"))
        rows.append(("held-out loss after", f"{last.loss:.4f} nats per {per}"))
        if last.accuracy is not None and first.accuracy is not None:
            rows.append(("held-out accuracy", f"{first.accuracy:.3f} before, {last.accuracy:.3f} after"))
    yield _table(rows)
    if facts.evaluations:
        yield "The losses are those of one party, over records of its own that it did not train on."
    usual = {name: str(getattr(RunSettings, name)) for name in facts.agreed if hasattr(RunSettings, name)}
    settings = [(name, value) for name, value in sorted(facts.agreed.items()) if name in usual and name not in LEFT_OUT]
    yield "Settings of the run:"
    yield _table(settings)


def _privacy(facts: RunFacts) -> str:
    if facts.epsilon is not None and facts.delta is not None:
        return (
            f"The party that wrote this card added noise to its gradients: its records are protected with epsilon = "
            f"{facts.epsilon:.3g} at delta = {facts.delta:g}. Each party decides that for itself."
        )
    return (
        "The party that wrote this card added no noise to its gradients. A model may have learnt single records by "
        "heart, and may write them out: look at its outputs before you publish it."
    )


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {value.replace('|', '/')} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _parties(folder: Path) -> int | None:
    """The number of members that the node's page showed last."""
    try:
        return len(parse((folder / "page.json").read_text(encoding="utf-8"))["map"]["members"]) or None
    except (OSError, *UNFIT):
        return None


def _hub_model(folder: Path) -> str:
    """The start model, if it is one of the hub. A path says nothing to others, and more than it should."""
    try:
        start = str(parse((folder / "run.json").read_text(encoding="utf-8"))["start_model"])
    except (OSError, *UNFIT):
        return ""
    return "" if start.startswith(("/", ".", "~")) else start
