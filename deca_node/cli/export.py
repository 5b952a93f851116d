"""``deca-node export``: the node's model as an ordinary Hugging Face checkpoint, finished or not."""

import json
import shutil
from pathlib import Path

import click

from deca_node.cli.door import dir_option, find_directory
from deca_node.cli.invocation import debug_option
from deca_node.protocol.errors import SettingsError, StorageError

FINAL = "final"


@click.command(
    epilog="""\b
Examples:
  deca-node export my-model
  deca-node export --dir deca-data/north --model ./Qwen2.5-0.5B halfway
"""
)
@click.argument("out", type=click.Path(path_type=Path))
@dir_option
@click.option(
    "--model", "model", help="What the run started from.  [default: what the node's folder says of its last start]"
)
@debug_option
def export(out: Path, directory: Path | None, model: str | None) -> None:
    """Write the node's model to the folder OUT, for transformers and all that reads its checkpoints.

    Takes the tuned model where the run is complete, and else makes one of the newest sound checkpoint. The node may
    be running meanwhile; it is not disturbed.
    """
    folder = find_directory(directory)
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} is there already; name a folder that is not")
    if (folder / FINAL).is_dir():
        _copy(folder / FINAL, out)
        click.echo(f"The tuned model is in {out}.")
        return
    from deca_node.numerics.export import export as make

    at = make(folder, model or _start_model(folder), out, _note).position
    click.echo(f"The model as of activation {at.activation} step {at.inner} is in {out}.")


def _note(sentence: str, level: str = "info") -> None:
    click.echo(f"{level}: {sentence}", err=True)


def _start_model(folder: Path) -> str:
    """What the node wrote down of the model it started from."""
    try:
        model = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("start_model")
    except (OSError, ValueError):
        model = None
    if not model:
        raise SettingsError(f"{folder} does not say which model its run started from; give --model")
    return str(model)


def _copy(final: Path, out: Path) -> None:
    aside = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(final, aside)
        # An empty folder may stand there; a rename replaces it.
        aside.replace(out)
    except OSError as problem:
        raise StorageError(f"the model cannot be copied to {out}: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
