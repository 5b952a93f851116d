"""The check of the tokenizer: whether it suits the model, and what it makes of the first records."""

from collections.abc import Iterator

from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, passed
from deca_node.daemon.settings.parts import trainer_options


def check_tokenizer(known: Known) -> Iterator[Finding]:
    """Read the tokenizer, and tokenize the first records as a start does; all of them where they are few."""
    from deca_node.numerics.forecast.record_check import try_records
    from deca_node.numerics.forecast.shapes import local_folder
    from deca_node.numerics.model.classifier import Head
    from deca_node.numerics.model.load import tokenizer_of

    run, node = known.settings.run, known.settings.node
    loaded = tokenizer_of(local_folder(node.model), known.model, Head.of(run))
    tokens = f"{len(loaded.tokenizer):,} tokens"
    if not known.records:
        yield passed("tokenizer", f"{tokens}; no records were tried", tokens=len(loaded.tokenizer))
        return
    yield passed(
        "tokenizer", f"{tokens}; {try_records(trainer_options(run, node), loaded)}", tokens=len(loaded.tokenizer)
    )
