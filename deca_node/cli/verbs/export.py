"""``deca-node export``: the model of a node, finished or not, as an ordinary Hugging Face checkpoint; or the mean of
several members' copies."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.protocol.agreed.agreement import Agreement, mismatch
from deca_node.protocol.errors import MismatchError, SettingsError, StorageError
from deca_node.storage.durable import replace_folder
from deca_node.storage.folder import FINAL, agreed_fields
from deca_node.storage.jsons import UNFIT, parse


@click.command(
    epilog="""\b
Examples:
  deca-node export my-model
  deca-node export --dir deca-data/north --model ./Qwen2.5-0.5B halfway
  The mean of all members' copies, from their folders or from what they exported:
    deca-node export --average mean deca-data/north deca-data/south ./from-west
"""
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("copies", nargs=-1, metavar="[COPY]...", type=click.Path(path_type=Path))
@dir_option
@click.option(
    "--model", "model", help="What the run started from.  [default: what the node's folder says of its last start]"
)
@click.option("--average", is_flag=True, help="Write the mean of the COPYs: nodes' folders, or exported models.")
@json_option
@debug_option
def export(
    out: Path, copies: tuple[Path, ...], directory: Path | None, model: str | None, average: bool, as_json: bool
) -> None:
    """Write the node's model to the folder OUT, for transformers and all that reads its checkpoints.

    Takes the tuned model where the run is complete, and else makes one of the newest sound checkpoint. The node may
    be running meanwhile; it is not disturbed.
    """
    if average != (len(copies) > 1) or (copies and not average):
        raise click.UsageError("--average takes OUT and two COPYs or more; without it, give OUT alone")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} is there already; name a folder that is not")
    if average:
        _say(_average(out, copies, model), as_json)
        return
    folder = find_directory(directory)
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}")
    _say(_export(folder, out, model), as_json)


def _say(facts: dict[str, Any], as_json: bool) -> None:
    sentence = facts.pop("sentence")
    click.echo(json.dumps(facts) if as_json else sentence)


def _export(folder: Path, out: Path, model: str | None) -> dict[str, Any]:
    """Make the model of one node's folder; returns what was made of what."""
    if (folder / FINAL).is_dir():
        _copy(folder / FINAL, out)
        return {"sentence": f"The tuned model is in {out}.", "path": str(out), "complete": True}
    from deca_node.numerics.saving.export import export as make

    at = make(folder, model or start_model(folder), out, note).position
    return {
        "sentence": f"The model as of activation {at.activation} step {at.inner} is in {out}.",
        "path": str(out),
        "complete": False,
        "activation": at.activation,
        "step": at.inner,
    }


def note(sentence: str, level: str = "info") -> None:
    """Say something beside the answer."""
    click.echo(f"{level}: {sentence}", err=True)


def start_model(folder: Path) -> str:
    """What the node wrote down of the model it started from."""
    try:
        model = parse((folder / "run.json").read_text(encoding="utf-8")).get("start_model")
    except (OSError, *UNFIT):
        model = None
    if not model:
        raise SettingsError(f"{folder} does not say which model its run started from; give --model")
    return str(model)


def _copy(final: Path, out: Path) -> None:
    try:
        with replace_folder(out) as aside:
            shutil.copytree(final, aside, dirs_exist_ok=True)
    except OSError as problem:
        raise StorageError(f"the model cannot be copied to {out}: {problem.strerror or problem}") from None


# --- the mean of several -------------------------------------------------------------------------------


def _average(out: Path, copies: Sequence[Path], model: str | None) -> dict[str, Any]:
    missing = [str(folder) for folder in copies if not folder.is_dir()]
    if missing:
        raise StorageError(f"there is no folder {missing[0]}")
    _check_one_run(copies)
    from deca_node.numerics.saving.averaging import average

    with _models(out, copies, model) as folders, progress_bar("Averaging") as report:
        made = average(folders, out, report)
    return {
        "sentence": f"The mean of {made.copies} copies is in {out}; they were {made.distance:.2e} from it (consensus "
        "distance).",
        "path": str(out),
        "copies": made.copies,
        "tensors": made.tensors,
        "parameters": made.elements,
        "consensus_distance": made.distance,
    }


def _check_one_run(copies: Sequence[Path]) -> None:
    """The nodes' folders among them must be of one run. What was exported does not say of which it is."""
    known = [(folder, Agreement(fields)) for folder in copies if (fields := agreed_fields(folder))]
    for folder, agreement in known[1:]:
        if differs := mismatch(known[0][1], agreement, str(known[0][0]), str(folder)):
            raise MismatchError(differs)


@contextmanager
def _models(out: Path, copies: Sequence[Path], model: str | None) -> Iterator[list[Path]]:
    """A folder with a model for each copy: its own, or one that is made of a checkpoint and removed at the end."""
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
    note(f"{folder} is not complete: its copy is that of activation {facts['activation']} step {facts['step']}")
    return aside


@contextmanager
def progress_bar(what: str) -> Iterator[Any]:
    """A bar on the terminal, as a function that takes (done, total); nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
