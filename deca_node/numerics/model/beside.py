"""What a model's folder holds beside the model, and what becomes of it.

::

    unknown tensors    tensors that the architecture has no place for, such as heads that predict several tokens ahead:
                       not trained, and written unchanged into every folder made of the model
    processor files    how pictures and sounds become inputs: copied
    an adapter         left out. transformers would put it into the model where peft is installed, and only there
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from deca_node.numerics.model.stored import unknown_tensors
from deca_node.protocol.errors import StorageError
from deca_node.storage.model_files import ADAPTER, INDEX, WEIGHTS, StoredTensor, read_header, read_headers, read_json

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
ADAPTER_FILES = "adapter_"
"""How the names of an adapter's files begin."""
NAMED_MAX = 3
"""How many tensors a sentence names."""


@dataclass(frozen=True)
class Beside:
    """What ``folder`` holds beside the model: ``unknown`` tensors, by their names in the files, and other ``files``.

    ``dropped``: folders made of the model do without the unknown tensors, since a classifier has no use for them.
    """

    folder: Path = Path()
    unknown: Mapping[str, StoredTensor] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    dropped: bool = False
    adapter: bool = False

    @classmethod
    def of(cls, folder: Path, model: PreTrainedModel, *, classifies: bool) -> "Beside":
        """Look through a folder. ``model`` is the model of its config.json, on torch's meta device."""
        stored = read_headers(folder)
        unknown = {name: stored[name] for name in unknown_tensors(model, stored)}
        if classifies:
            # A language model's head is no part of a classifier, and its end is no loss.
            inner = f"{model.base_model_prefix}."
            unknown = {name: tensor for name, tensor in unknown.items() if name.startswith(inner)}
        files = tuple(name for name in PROCESSOR_FILES if (folder / name).is_file())
        return cls(folder, unknown, files, classifies, (folder / ADAPTER).is_file())

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that go into a folder made of the model."""
        return 0 if self.dropped else sum(tensor.nbytes for tensor in self.unknown.values())

    def told(self) -> Iterator[str]:
        """What a user should know of it, in sentences."""
        if self.adapter:
            yield f"{self.folder}: the adapter beside the weights is left out; merge it first if it should count"
        if self.unknown:
            names = sorted(self.unknown)
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            becomes = "will be missing in final/" if self.dropped else "go into final/ unchanged"
            yield (
                f"{self.folder}: the model of config.json has no place for {len(names):,} tensors of the files, which "
                f"are not trained and {becomes}: {', '.join(names[:NAMED_MAX])}{more}"
            )

    def write(self, folder: Path) -> None:
        """Put it into ``folder``, where the model has just been written. Raises StorageError where it is gone."""
        try:
            for name in self.files:
                shutil.copyfile(self.folder / name, folder / name)
            tensors = {} if self.dropped else {name: _read(tensor, name) for name, tensor in self.unknown.items()}
        except OSError as error:
            raise StorageError(
                f"{self.folder}, where the run started from, cannot be read any more: {error}"
            ) from error
        if tensors:
            _add_weights(folder, tensors)


@contextmanager
def only_the_model(folder: Path) -> Iterator[Path]:
    """The folder; where an adapter lies in it, a folder of links to everything but the adapter."""
    if not (folder / ADAPTER).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="deca-model-") as name:
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith(ADAPTER_FILES):
                Path(name, path.name).symlink_to(path.resolve())
        yield Path(name)


def _read(tensor: StoredTensor, name: str) -> Tensor:
    with safe_open(tensor.file, framework="pt") as file:
        found: Tensor = file.get_tensor(name)
    return found


def _add_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write a file of weights beside those in a folder, and the index that lists them all."""
    if (folder / WEIGHTS).is_file():
        first, added = (f"model-{number:05d}-of-00002.safetensors" for number in (1, 2))
        (folder / WEIGHTS).rename(folder / first)
        index: dict[str, Any] = {"metadata": {}, "weight_map": dict.fromkeys(read_header(folder / first), first)}
    else:
        added = "model-unchanged.safetensors"
        index = read_json(folder / INDEX, f"{folder} holds no weights")
    save_file(tensors, folder / added, metadata={"format": "pt"})
    index["weight_map"] |= dict.fromkeys(tensors, added)
    sizes = (
        tensor.nbytes for name in set(index["weight_map"].values()) for tensor in read_header(folder / name).values()
    )
    index["metadata"]["total_size"] = sum(sizes)
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
