"""The manifest of a checkpoint, and the choice of the checkpoint that a start goes on from.

A block changes only during its own visit. So a checkpoint names the newest files of every block, and files that are
there already are not written again. The manifest holds the length and SHA-256 of every file, and a digest of itself.
Two checkpoints are kept: if a file of the newest is damaged, the one before it is used. The daemon reads manifests too,
to serve the files to late nodes. docs/ARCHITECTURE.md lists the files.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from deca_node.protocol.agreed.agreement import FORMER, Agreement, mismatch
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError
from deca_node.protocol.options import Note
from deca_node.storage.durable import OLD, PARTIAL, remove, sum_file, tidy, write_file
from deca_node.storage.jsons import UNFIT

FORMAT = 1
START, BLOCKS, CHECKPOINTS, MANIFEST, ACTIVE = "start", "blocks", "checkpoints", "manifest.json", "active.safetensors"
KEPT = 2
MANIFEST_BYTES_MAX = 64 << 20
DAMAGED = ".damaged"

_FOLDER = re.compile(r"(\d{6,12})-(\d{5,12})")
_BLOCK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_HEX = re.compile(r"[0-9a-f]{64}")


class DamagedError(StorageError):
    """A checkpoint is damaged: a file is missing, cut short or altered."""


@dataclass(frozen=True)
class StoredFile:
    """A file: its path within the node's folder, its length in bytes and its SHA-256 in hex."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredBlock:
    """The newest version of a visited block: frozen at the end of ``activation``."""

    activation: int
    value: StoredFile
    delta: StoredFile


@dataclass(frozen=True)
class StoredActive:
    """The block in the middle of its visit: ``file`` holds its float32 vectors, ``counts`` are deca.Counts."""

    block: str
    file: StoredFile
    counts: tuple[int, float, float]


@dataclass(frozen=True)
class DataPlace:
    """Where the next batch begins: ``position`` of the ``sequences`` in the data are used up in ``epoch``."""

    epoch: int
    position: int
    sequences: int


@dataclass(frozen=True)
class Manifest:
    """A checkpoint. ``position`` is the next step to be done. Blocks that are not in ``blocks`` were never visited.

    ``rng`` holds the states of the random generators in base64, by device. ``written`` is in Unix seconds.
    """

    agreement: Agreement
    position: Step
    blocks: Mapping[str, StoredBlock]
    active: StoredActive | None
    cursor: DataPlace
    rng: Mapping[str, str]
    written: float

    @property
    def files(self) -> Iterable[StoredFile]:
        """All files that the checkpoint names."""
        for block in self.blocks.values():
            yield block.value
            yield block.delta
        if self.active:
            yield self.active.file


# --- names ------------------------------------------------------------------------------------------


def folder_of(directory: Path, position: Step) -> Path:
    """The folder of the checkpoint of a position."""
    return directory / CHECKPOINTS / f"{position.activation:06d}-{position.inner:05d}"


def value_name(block: str, activation: int) -> str:
    """The path of a block version's values, within the node's folder."""
    return f"{BLOCKS}/{block}@{activation:06d}.safetensors"


def delta_name(block: str, activation: int) -> str:
    """The path of a block version's difference to the start, within the node's folder."""
    return f"{BLOCKS}/{block}@{activation:06d}.delta"


def checkpoints(directory: Path) -> list[Path]:
    """The folders of all checkpoints, sound or not, newest first."""
    folder = directory / CHECKPOINTS
    found = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_position, reverse=True)


def _position(folder: Path) -> Step:
    match = _FOLDER.fullmatch(folder.name)
    assert match, "checkpoints() gives no other names"
    return Step(int(match[1]), int(match[2]))


# --- writing ----------------------------------------------------------------------------------------


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into its checkpoint's folder, durably. Raises OSError."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": manifest.agreement.fingerprint,
        "agreement": dict(manifest.agreement.fields),
        "position": [manifest.position.activation, manifest.position.inner],
        "blocks": {name: asdict(block) for name, block in manifest.blocks.items()},
        "active": asdict(manifest.active) if manifest.active else None,
        "cursor": asdict(manifest.cursor),
        "rng": dict(manifest.rng),
        "written": manifest.written,
    }
    content["digest"] = _digest(content)
    write_file(folder / MANIFEST, [json.dumps(content, indent=1, sort_keys=True).encode()])


def prune(directory: Path, kept: int = KEPT) -> None:
    """Delete all but the newest ``kept`` checkpoints, and block files that none of these names. Raises OSError.

    While a checkpoint that is kept cannot be read, or is being replaced, the files that it names are not known. Nothing
    is deleted then.
    """
    if any((directory / CHECKPOINTS).glob(f"*{OLD}")):
        return
    newest, older = checkpoints(directory)[:kept], checkpoints(directory)[kept:]
    try:
        named = {stored.file for folder in newest for stored in read_manifest(folder).files}
    except DamagedError:
        return
    for folder in [*older, *(directory / CHECKPOINTS).glob(f"*{DAMAGED}")]:
        # Renamed first, so that a crash in the middle leaves nothing that looks like a checkpoint.
        doomed = folder.with_name(folder.name + PARTIAL)
        folder.replace(doomed)
        remove(doomed)
    for path in (directory / BLOCKS).glob("*"):
        if f"{BLOCKS}/{path.name}" not in named:
            remove(path)


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of everything but the digest itself."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(text.encode()).hexdigest()


# --- reading ----------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of one checkpoint; the files that it names are not read. Raises DamagedError."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            data = file.read(MANIFEST_BYTES_MAX + 1)
    except OSError as problem:
        raise DamagedError(f"{path} cannot be read: {problem.strerror}") from None
    try:
        return _parse(data, folder)
    except (RecursionError, *UNFIT) as problem:
        first = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise DamagedError(f"{path} is damaged: {first[:200]}") from None


def newest_manifest(directory: Path) -> Manifest | None:
    """The newest manifest that can be read, for a donor that serves its files; None if there is none."""
    for folder in checkpoints(directory):
        with contextlib.suppress(DamagedError):
            return read_manifest(folder)
    return None


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file with its length and sum. Raises DamagedError, which names the first that differs."""
    for stored in manifest.files:
        path = directory / stored.file
        try:
            if path.stat().st_size != stored.bytes:
                raise DamagedError(f"{path} has {path.stat().st_size:,} bytes instead of {stored.bytes:,}")
            if sum_file(path).sha256 != stored.sha256:
                raise DamagedError(f"{path} is not what was written: its SHA-256 differs")
        except OSError as problem:
            raise DamagedError(f"{path} cannot be read: {problem.strerror}") from None


def newest_sound(directory: Path, agreement: Agreement, note: Note) -> Manifest | None:
    """The checkpoint to go on from; None if there never was one. Half-written files of a crash are removed.

    A damaged checkpoint is named in a warning and set aside, and the one before it is used. Raises StorageError if
    there are checkpoints but none is sound, or if the newest readable one is of another run or model than
    ``agreement``.
    """
    damaged: dict[Path, str] = {}
    try:
        for name in (CHECKPOINTS, BLOCKS, START):
            tidy(directory / name)
        for folder in checkpoints(directory):
            try:
                manifest = read_manifest(folder)
                _check_run(manifest, agreement, folder)
                check_files(directory, manifest)
            except DamagedError as problem:
                damaged[folder] = str(problem)
                continue
            for bad, why in damaged.items():
                note(f"checkpoint {bad.name} is damaged and left out: {why}; going back to {folder.name}", "warning")
                _set_aside(bad)
            return manifest
    except OSError as problem:
        raise StorageError(f"the checkpoints in {directory} cannot be put in order: {problem}") from None
    if damaged:
        where, why = directory / CHECKPOINTS, next(iter(damaged.values()))
        raise StorageError(
            f"none of the {len(damaged)} checkpoints in {where} is sound ({why}); to start from the beginning, and "
            "catch up with the other nodes, move that folder away"
        )
    return None


def _check_run(manifest: Manifest, agreement: Agreement, folder: Path) -> None:
    difference = mismatch(manifest.agreement, agreement, "the checkpoint", "this start")
    if difference:
        raise StorageError(
            f"cannot go on from {folder}: {difference}; start with the settings and the model that it was made with"
            f"{_former(manifest.agreement, agreement)}, or choose another --dir"
        )


def _former(theirs: Agreement, ours: Agreement) -> str:
    """What to set where a checkpoint is older than a setting."""
    younger = [name for name in ours.fields if name in FORMER and name not in theirs.fields]
    return "".join(f" ({name} = '{FORMER[name]}')" for name in younger)


def _set_aside(folder: Path) -> None:
    """Rename a damaged checkpoint, so that a later one at the same position can be written. The next :func:`prune`
    deletes it."""
    aside = folder.with_name(folder.name + DAMAGED)
    if aside.exists():
        remove(aside)
    folder.replace(aside)


# --- from JSON --------------------------------------------------------------------------------------


def _parse(data: bytes, folder: Path) -> Manifest:
    """Raises RecursionError or one of UNFIT if the bytes are not the manifest of this folder."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise ValueError(f"it is longer than {MANIFEST_BYTES_MAX:,} bytes")
    content = _object(json.loads(data, parse_constant=_no_number))
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
    if content["digest"] != _digest(content):
        raise ValueError("its digest differs")
    agreement = Agreement({name: _text(value) for name, value in _object(content["agreement"]).items()})
    if content["fingerprint"] != agreement.fingerprint:
        raise ValueError("its fingerprint does not match its agreement")
    activation, inner = content["position"]
    position = Step(_count(activation), _count(inner))
    if folder_of(folder.parent.parent, position).name != folder.name:
        raise ValueError(f"its position is {position.activation}-{position.inner}")
    return Manifest(
        agreement=agreement,
        position=position,
        blocks={name: _block(name, value) for name, value in _object(content["blocks"]).items()},
        active=_active(content["active"], position),
        cursor=DataPlace(**{name: _count(value) for name, value in _object(content["cursor"]).items()}),
        rng={name: _text(value) for name, value in _object(content["rng"]).items()},
        written=float(content["written"]),
    )


def _block(name: str, content: Any) -> StoredBlock:
    if not _BLOCK_NAME.fullmatch(name):
        raise ValueError(f"{name[:50]!r} is not a block name")
    activation = _count(_object(content)["activation"])
    value = _file(content["value"], value_name(name, activation))
    return StoredBlock(activation, value, _file(content["delta"], delta_name(name, activation)))


def _active(content: Any, position: Step) -> StoredActive | None:
    if (content is None) != (position.inner == 0):
        raise ValueError("it has an active block if and only if its position is within an activation")
    if content is None:
        return None
    gradients, c1, c2 = _object(content)["counts"]
    name = f"{CHECKPOINTS}/{folder_of(Path(), position).name}/{ACTIVE}"
    file = _file(content["file"], name)
    return StoredActive(_text(content["block"]), file, (_count(gradients), float(c1), float(c2)))


def _file(content: Any, expected: str) -> StoredFile:
    """A file must have the ``expected`` name, so no manifest can name a file outside of the node's folder."""
    if _object(content)["file"] != expected:
        raise ValueError(f"it names {str(content['file'])[:100]!r} where {expected!r} belongs")
    if not _HEX.fullmatch(_text(content["sha256"])):
        raise ValueError(f"the sum of {expected} is not a SHA-256")
    return StoredFile(expected, _count(content["bytes"]), content["sha256"])


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("a part of it is not an object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a part of it is not text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("a part of it is not a whole number from 0 up")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")
