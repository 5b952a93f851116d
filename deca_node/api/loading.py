"""The model that a folder holds.

::

    DIR/final/            the run is complete: the tuned model
    DIR/checkpoints/      it is not: the start model with the blocks of the newest sound checkpoint
    DIR/config.json       an ordinary Hugging Face folder, such as `deca-node export` writes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deca_node.protocol.errors import SettingsError, StorageError
from deca_node.protocol.options import Note
from deca_node.storage.folder import FINAL, agreed_fields
from deca_node.storage.jsons import UNFIT, parse

if TYPE_CHECKING:
    from deca_node.numerics.model.load import LoadedModel


def quietly(sentence: str, level: str = "info") -> None:
    """Take a note, and tell nobody."""


CPU = "cpu"


class Tuned(NamedTuple):
    """A model of transformers in evaluation mode, and its tokenizer."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class Held:
    """What a folder holds: the model in training mode, what it is in words, and the fields that its run agreed on (none
    for a model of no run)."""

    loaded: "LoadedModel"
    what: str
    fields: Mapping[str, str]


def load(directory: str | Path, device: str | None = None, start_model: str | Path | None = None) -> Tuned:
    """The model in ``directory``, a node's folder or an export, and its tokenizer.

    ``device`` is the CPU unless told otherwise. The node may be running. ``start_model`` is needed only for an
    unfinished run whose start model has been moved. Raises StorageError, ModelError or SettingsError with one sentence.
    """
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}")
    if (folder / FINAL).is_dir() or not (folder / "config.json").is_file():
        held = model_of(folder, str(start_model) if start_model else None, device)
    else:
        held = checkpoint(str(folder), device)
    held.loaded.model.eval()
    return Tuned(held.loaded.model, held.loaded.tokenizer)


def checkpoint(source: str, device: Any = None) -> Held:
    """The model of an ordinary Hugging Face folder, or of a hub id."""
    from deca_node.numerics.learning.evaluation import own_head
    from deca_node.numerics.model.load import load_model

    return Held(load_model(source, device=device or CPU, head=own_head(source)), source, {})


def model_of(folder: Path, start: str | None = None, device: Any = None, note: Note = quietly) -> Held:
    """The tuned model in a node's folder, or the model of its newest checkpoint. ``start`` is the start model; without
    it the one that is noted in the folder is used. ``note`` is told of damaged checkpoints."""
    from deca_node.numerics.learning.evaluation import own_head
    from deca_node.numerics.model.classifier import Head
    from deca_node.numerics.model.load import load_model
    from deca_node.numerics.saving.export import restore

    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}")
    fields = agreed_fields(folder)
    if (folder / FINAL).is_dir():
        final = str(folder / FINAL)
        head = Head((), 0) if fields.get("task") == "classification" else own_head(final)
        return Held(load_model(final, device=device or CPU, head=head), f"the tuned model in {final}", fields)
    loaded, manifest = restore(folder, start or start_model_of(folder), note)
    loaded.model.to(device or CPU)
    at = manifest.position
    return Held(loaded, f"{folder} as of activation {at.activation} step {at.inner}", dict(manifest.agreement.fields))


def start_model_of(folder: Path) -> str:
    """The start model that is noted in the node's folder. Raises SettingsError where there is none."""
    try:
        model = parse((folder / "run.json").read_text(encoding="utf-8")).get("start_model")
    except (OSError, *UNFIT):
        model = None
    if not model:
        raise SettingsError(f"{folder} does not say which model its run started from; give it with --model")
    return str(model)
