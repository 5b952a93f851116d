"""The mean of several copies of one model, computed from their files, one slice of a tensor at a time.

While members disagree, their mean is better than each of them. After a run that was cut short, the mean is the model
that the final flush would have reached. No copy is loaded as a model: names, types and shapes are compared in the
files' headers. Then every tensor is read in slices from all copies at once, added in float64, and written rounded to
its own type. So memory stays at a few slices, whatever the model's size.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deca_node.protocol.errors import MismatchError, StorageError
from deca_node.protocol.options import ProgressReport
from deca_node.storage.durable import replace_folder, write_file
from deca_node.storage.folder import ORIGIN
from deca_node.storage.model_files import StoredTensor, read_header, read_headers, read_json, weight_files

SLICE_ELEMENTS = 1 << 20
"""Elements of each copy in memory at a time; a row with more elements is read whole."""
UNLIKE = {"transformers_version", "_name_or_path"}
"""Keys that may differ between two config.json of one model."""
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Averaged:
    """The result of an average: ``tensors`` tensors with ``elements`` elements in all.

    ``distance`` is the consensus distance of the copies: the RMS, over all elements and copies, of the difference
    between a copy and the mean.
    """

    copies: int
    tensors: int
    elements: int
    distance: float


def average(copies: Sequence[Path], out: Path, report: ProgressReport = lambda done, total: None) -> Averaged:
    """Write the mean of ``copies``, folders of Hugging Face checkpoints, to the folder ``out``.

    Config and tokenizer are those of the first copy. ``report`` takes (done, total) in elements. Raises MismatchError
    if the folders are not copies of one model, ModelError if one is damaged, StorageError if ``out`` cannot be written.
    """
    stored = [read_headers(folder) for folder in copies]
    for folder, tensors in zip(copies[1:], stored[1:], strict=True):
        _check_alike(copies[0], stored[0], folder, tensors)
        _check_same_files(copies[0], folder)
    try:
        with replace_folder(out) as aside, contextlib.ExitStack() as stack:
            mean = _Mean(stored, stack, report)
            for path in weight_files(copies[0]):
                mean.write(path, aside / path.name)
            _copy_the_rest(copies[0], aside)
    except OSError as problem:
        raise StorageError(f"the mean cannot be written to {out}: {problem.strerror or problem}") from None
    return mean.outcome(len(copies))


# --- are they copies of one model? ----------------------------------------------------------------------


def _check_alike(
    first: Path, ours: Mapping[str, StoredTensor], other: Path, theirs: Mapping[str, StoredTensor]
) -> None:
    if odd := sorted(ours.keys() ^ theirs.keys()):
        has, lacks = (first, other) if odd[0] in ours else (other, first)
        more = f", and {len(odd) - 1} more differ" if len(odd) > 1 else ""
        raise MismatchError(f"{has} has a tensor {odd[0]}, and {lacks} has none{more}: not copies of one model")
    for name, tensor in ours.items():
        kinds = [f"{t.dtype} {list(t.shape)}" for t in (tensor, theirs[name])]
        if kinds[0] != kinds[1]:
            raise MismatchError(f"{name} is {kinds[0]} in {first} and {kinds[1]} in {other}: not copies of one model")


def _check_same_files(first: Path, other: Path) -> None:
    """Raise MismatchError unless config.json, and tokenizer.json if both have one, are the same."""
    ours, theirs = (read_json(folder / "config.json", f"{folder} holds no config.json") for folder in (first, other))
    for key in sorted((ours.keys() | theirs.keys()) - UNLIKE):
        if ours.get(key) != theirs.get(key):
            raise MismatchError(f"{key} in config.json differs between {first} and {other}: not copies of one model")
    sums = [_sum(folder / "tokenizer.json") for folder in (first, other)]
    if None not in sums and sums[0] != sums[1]:
        raise MismatchError(f"tokenizer.json differs between {first} and {other}: not copies of one model")


def _sum(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


# --- the mean -------------------------------------------------------------------------------------------


class _Mean:
    """Reads the copies side by side, and each tensor from the file that holds it in its copy."""

    def __init__(
        self, stored: Sequence[Mapping[str, StoredTensor]], stack: contextlib.ExitStack, report: ProgressReport
    ):
        self._stored = stored
        self._stack = stack
        self._report = report
        self._open: dict[Path, safe_open] = {}
        self._total = sum(tensor.elements for tensor in stored[0].values())
        self._done = self._tensors = 0
        self._squares = 0.0

    def write(self, layout: Path, out: Path) -> None:
        """Write the averaged tensors of the file ``layout``, in its order and with its header."""
        tensors = read_header(layout)
        with layout.open("rb") as file:
            head = file.read(8)
            header = file.read(int.from_bytes(head, "little"))
        begin = {name: entry["data_offsets"][0] for name, entry in json.loads(header).items() if name in tensors}
        write_file(out, self._chunks([head, header], sorted(tensors, key=begin.__getitem__)))

    def outcome(self, copies: int) -> Averaged:
        """The facts about the average, once all files are written."""
        distance = math.sqrt(self._squares / max(self._done * copies, 1))
        return Averaged(copies, self._tensors, self._done, distance)

    def _chunks(self, front: Sequence[bytes], names: Sequence[str]) -> Iterator[bytes | memoryview]:
        yield from front
        for name in names:
            tensor = self._stored[0][name]
            for start, stop in _rows(tensor.shape):
                yield self._mean_of(name, tensor, start, stop).contiguous().reshape(-1).view(torch.uint8).numpy().data
            self._tensors += 1
            self._done += tensor.elements
            self._report(self._done, self._total)

    def _mean_of(self, name: str, tensor: StoredTensor, start: int, stop: int) -> Tensor:
        parts = [self._read(stored[name].file, name, start, stop, bool(tensor.shape)) for stored in self._stored]
        if tensor.dtype not in FLOATS:
            if any(not torch.equal(parts[0], part) for part in parts[1:]):
                raise MismatchError(f"{name} holds {tensor.dtype} numbers that differ: they have no mean")
            return parts[0]
        wide = [part.to(torch.float64) for part in parts]
        mean = sum(wide[1:], wide[0].clone()) / len(wide)
        if not bool(torch.isfinite(mean).all()):
            raise MismatchError(f"{name} holds numbers that are not finite in one of the copies: they have no mean")
        self._squares += sum(float((part - mean).square().sum()) for part in wide)
        return mean.to(parts[0].dtype)

    def _read(self, path: Path, name: str, start: int, stop: int, has_rows: bool) -> Tensor:
        try:
            if path not in self._open:
                self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
            file = self._open[path]
            found: Tensor = file.get_slice(name)[start:stop] if has_rows else file.get_tensor(name)
        except SafetensorError as problem:
            raise StorageError(f"{path} cannot be read: {problem}") from None
        return found


def _rows(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of the first dimension with about ``SLICE_ELEMENTS`` elements each; a single dummy range for a scalar."""
    if not shape:
        yield 0, 1
        return
    step = max(SLICE_ELEMENTS // max(math.prod(shape[1:]), 1), 1)
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _copy_the_rest(source: Path, target: Path) -> None:
    weights = {path.name for path in weight_files(source)}
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in {*weights, ORIGIN} and path.suffix != ".safetensors":
            with path.open("rb") as file:
                write_file(target / path.name, iter(lambda: file.read(1 << 20), b""))
