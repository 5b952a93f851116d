"""``deca-node export``: a node's model as a Hugging Face checkpoint, or the mean of several members' copies."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from deca_node.api.loading import start_model_of
from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.views.progress import note, progress_bar
from deca_node.protocol.agreed.agreement import Agreement, mismatch
from deca_node.protocol.errors import MismatchError, StorageError
from deca_node.storage.durable import replace_folder
from deca_node.storage.folder import FINAL, agreed_fields, alone_because


@click.command(
    epilog="""\b
Examples:
  deca-node export my-model
  deca-node export --dir deca-data/north --model ./Qwen2.5-0.5B halfway
  The mean of several members' copies, from nodes' folders or from exported models:
    deca-node export mean-of-three deca-data/north deca-data/south ./from-west --average
"""
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("copies", nargs=-1, metavar="[COPY]...", type=click.Path(path_type=Path))
@dir_option
@click.option("--model", "model", help="The run's start model.  [default: as noted in the node's folder]")
@click.option("--average", is_flag=True, help="Write the mean of the COPYs: nodes' folders or exported models.")
@click.option("--anyway", is_flag=True, help="Average copies of unlike runs, and copies that a node trained alone.")
@json_option
@debug_option
def export(
    out: Path,
    copies: tuple[Path, ...],
    directory: Path | None,
    model: str | None,
    average: bool,
    anyway: bool,
    as_json: bool,
) -> None:
    """Write the node's model to the folder OUT as an ordinary Hugging Face checkpoint.

    If the run is complete, this is the tuned model; if not, it is made from the newest sound checkpoint. The node may
    keep running and is not disturbed.
    """
    if average != (len(copies) > 1) or (copies and not average):
        raise click.UsageError("--average needs OUT and at least two COPYs; without --average, give OUT alone")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} exists already; name a new folder")
    if average:
        _say(_average(out, copies, model, anyway=anyway), as_json)
        return
    folder = find_directory(directory)
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}")
    _say(_export(folder, out, model), as_json)


def _say(facts: dict[str, Any], as_json: bool) -> None:
    sentence = facts.pop("sentence")
    click.echo(json.dumps(facts) if as_json else sentence)


def _export(folder: Path, out: Path, model: str | None) -> dict[str, Any]:
    """Write the model of one node's folder to ``out``; returns the facts for ``--json``, and the sentence."""
    if (folder / FINAL).is_dir():
        _copy(folder / FINAL, out)
        facts = {"sentence": f"The tuned model is in {out}.", "path": str(out), "complete": True}
        if alone := alone_because(folder / FINAL):
            facts |= {"sentence": f"The tuned model is in {out}. It is not the others': {alone}.", "alone": alone}
        return facts
    from deca_node.numerics.saving.export import export as make

    at = make(folder, model or start_model_of(folder), out, note).position
    return {
        "sentence": f"The model as of activation {at.activation} step {at.inner} is in {out}.",
        "path": str(out),
        "complete": False,
        "activation": at.activation,
        "step": at.inner,
    }


def _copy(final: Path, out: Path) -> None:
    try:
        with replace_folder(out) as aside:
            shutil.copytree(final, aside, dirs_exist_ok=True)
    except OSError as problem:
        raise StorageError(f"the model cannot be copied to {out}: {problem.strerror or problem}") from None


# --- the mean of several -------------------------------------------------------------------------------


def _average(out: Path, copies: Sequence[Path], model: str | None, *, anyway: bool) -> dict[str, Any]:
    missing = [str(folder) for folder in copies if not folder.is_dir()]
    if missing:
        raise StorageError(f"there is no folder {missing[0]}")
    if not anyway:
        _check_one_run(copies)
    from deca_node.numerics.saving.averaging import average

    with _models(out, copies, model) as folders, progress_bar("Averaging") as report:
        made = average(folders, out, report)
    return {
        "sentence": f"The mean of {made.copies} copies is in {out}. The consensus distance of the copies was "
        f"{made.distance:.2e}.",
        "path": str(out),
        "copies": made.copies,
        "tensors": made.tensors,
        "parameters": made.elements,
        "consensus_distance": made.distance,
    }


def _check_one_run(copies: Sequence[Path]) -> None:
    """Check that all nodes' folders belong to one run, and that no copy was trained alone. Exported models do not name
    their run."""
    known = [(folder, Agreement(fields)) for folder in copies if (fields := agreed_fields(folder))]
    for folder, agreement in known[1:]:
        if differs := mismatch(known[0][1], agreement, str(known[0][0]), str(folder)):
            raise MismatchError(differs)
    for folder in copies:
        if alone := alone_because(folder / FINAL) or alone_because(folder):
            raise MismatchError(
                f"the copy in {folder} is not the others': {alone}; leave it out, or average it with --anyway"
            )


@contextmanager
def _models(out: Path, copies: Sequence[Path], model: str | None) -> Iterator[list[Path]]:
    """A folder with a model for each copy. Models that are made from checkpoints are removed at the end."""
    made = out.with_name(f".{out.name}.copies")
    try:
        yield [_model_of(folder, made / str(number), model) for number, folder in enumerate(copies)]
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _model_of(folder: Path, aside: Path, model: str | None) -> Path:
    if (folder / FINAL).is_dir():
        return folder / FINAL
    if not (folder / "checkpoints").is_dir():
        return folder
    facts = _export(folder, aside, model)
    at = f"activation {facts['activation']} step {facts['step']}"
    note(f"the run in {folder} is not complete; its model as of {at} is used")
    return aside
