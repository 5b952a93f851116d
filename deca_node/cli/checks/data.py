"""The check of the records: how many there are of which kind, and which are malformed."""

from collections.abc import Iterator

from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, failed, passed, warned
from deca_node.protocol.errors import DataError
from deca_node.storage.data_sources import data_sources

SENTENCES_MAX = 3
"""Malformed records that are named one by one."""


def check_data(known: Known) -> Iterator[Finding]:
    """Read all records, without a tokenizer."""
    from deca_node.numerics.data.formats.sources import Reading
    from deca_node.numerics.forecast.data_check import known_labels, look_through

    node = known.settings.node
    labels = known_labels(known.settings.run, node.model)
    if labels is None:
        says = "not checked: the labels are those of the model's config.json, which is not on this machine"
        yield warned("data", says, "name the labels with --labels")
        return
    progress = lambda done, total: known.say(f"data, {done / max(total, 1):.0%}")  # noqa: E731
    reading = Reading.of(node.format, node.columns)
    check = look_through(node.data, progress, labels, reading)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in check.kinds.items()) or "no records"
    files = "".join(f"; {sentence}" for sentence in check.files)
    facts = {
        "records": check.records,
        "bad_records": check.bad,
        "characters": check.characters,
        "files": list(check.files),
    }
    if not check.records and all(source.is_hub for source in data_sources(node.data)):
        yield passed("data", "; ".join(check.files), **facts)
        return
    if not check.records:
        first = f"; the first: {check.sentences[0]}" if check.sentences else ""
        raise DataError(f"{node.data}: there are no usable records ({check.bad:,} are malformed{first})")
    if not check.bad or node.bad_records == "skip":
        known.records = check.records
    if not check.bad:
        yield passed("data", f"{kinds}, {check.characters:,} characters{files}", **facts)
        return
    says = f"{kinds}, and {check.bad:,} malformed records: {'; '.join(check.sentences[:SENTENCES_MAX])}{files}"
    if node.bad_records == "skip":
        yield warned("data", says, "nothing, if these records may be left out", **facts)
    else:
        yield failed("data", says, "correct these records, or use --bad-records skip", **facts)
