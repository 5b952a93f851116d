"""The weight files of a Hugging Face checkpoint: which they are, and what their headers say of each tensor.

A safetensors file is an eight-byte length, a JSON header and the tensors' bytes one after another
(https://huggingface.co/docs/safetensors). So names, types and shapes, and whether the end of a file is missing, are
known within milliseconds, however large the model is.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deca_node.protocol.errors import ModelError
from deca_node.storage.jsons import UNFIT, parse

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NAME_BYTES_MAX = 255
"""The longest name of a file that Linux and macOS take, in bytes."""
HEADER_BYTES_MAX = 100 << 20
"""The limit of the safetensors library itself."""

ELEMENT_BYTES: Mapping[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "U16": 2,
    "U32": 4,
    "U64": 8,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as a header describes it. ``dtype`` is safetensors' word (F32, BF16, ...), and ``file`` is the file
    that holds the tensor."""

    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its bytes on disk."""
        return self.elements * ELEMENT_BYTES[self.dtype]


def read_headers(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name, from the headers of its weight files.

    Raises ModelError if a file is missing, damaged or cut short.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        if not path.is_file():
            raise ModelError(f"{folder}: {INDEX} lists {path.name}, which is missing")
        found.update(read_header(path))
    return found


def holds_weights(folder: Path) -> bool:
    """Whether weight files are there, sound or not."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of one file by name. Raises ModelError if the file is damaged or cut short."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > HEADER_BYTES_MAX:
                raise ValueError(f"a header of {length:,} bytes")
            header = parse(file.read(length).decode())
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: StoredTensor(e["dtype"], tuple(e["shape"]), path) for name, e in entries.items()}
        _check_extent(path, tensors, entries, 8 + length)
    except (OSError, struct.error, *UNFIT) as error:
        raise ModelError(f"{path} is damaged or cut short: {brief(error)}") from error
    return tensors


def _check_extent(path: Path, tensors: Mapping[str, StoredTensor], entries: Mapping[str, Any], begin: int) -> None:
    """Raise ValueError if a tensor has fewer or more bytes than its shape needs, or if the file's length is wrong."""
    end = 0
    for name, tensor in tensors.items():
        low, high = entries[name]["data_offsets"]
        if high - low != tensor.nbytes:
            raise ValueError(f"{name} takes {high - low} bytes where its shape needs {tensor.nbytes}")
        end = max(end, high)
    size = path.stat().st_size
    if size != begin + end:
        raise ValueError(f"the file has {size:,} bytes where its header needs {begin + end:,}")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights. Raises ModelError, also if the weights are pickled."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = read_json(folder / INDEX, "").get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f"{folder}/{INDEX} lists no weights")
        # An index may come from a donor: it must name files beside itself, and no others.
        strange = [name for name in shards.values() if not _is_beside(name)]
        if strange:
            raise ModelError(f"{folder}/{INDEX} lists {brief(repr(strange[0]))}, which names no file beside it")
        return [folder / name for name in sorted(set(shards.values()))]
    if any(found for pattern in PICKLES for found in folder.glob(pattern)):
        raise ModelError(
            f"{folder} holds pickled weights (.bin, .pt), which can run code and are not read; convert them once, on a "
            "machine you can afford to lose, with AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )
    adapter = "; it holds an adapter, which is no model: merge it first" if (folder / ADAPTER).is_file() else ""
    raise ModelError(f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX}{adapter}")


def _is_beside(name: object) -> bool:
    """Whether this can be the name of a file in the same folder."""
    return (
        isinstance(name, str)
        and Path(name).name == name
        and len(name.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX
    )


def read_json(path: Path, absent: str) -> dict[str, Any]:
    """Read an object from a JSON file. Raises ModelError; if there is no file, ``absent`` is its sentence."""
    if not path.is_file():
        raise ModelError(absent)
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON: {brief(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


def brief(error: object, length_max: int = 200) -> str:
    """The first line of an error message that a library wrote, at most ``length_max`` characters. A first line that
    only leads to what follows, and ends in a colon, goes on with the next lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    end = next((k for k, line in enumerate(lines) if not line.endswith((":", ","))), len(lines))
    line = " ".join(lines[: end + 1]) or type(error).__name__
    return line if len(line) <= length_max else line[: length_max - 1] + "…"
