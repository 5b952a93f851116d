"""Which files of a folder are taken, and which are left out and why.

Folders are read at any depth and in sorted order; linked ones are followed, and no file counts twice. Where a folder
has files of records, a README, a licence and JSON files of another kind are about the data, and left out; in a folder
that has none, they are texts as all others.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deca_node.numerics.data.formats.entries import kind_of
from deca_node.numerics.data.formats.opening import readable, uncompressed
from deca_node.numerics.data.formats.shapes import KNOWN
from deca_node.numerics.data.formats.sources import FilesRead, Reading
from deca_node.protocol.errors import DataError

BACKUPS = ("~", ".bak", ".tmp", ".swp", ".orig", ".old", ".part", ".crdownload")
DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
ABOUT = ("readme", "license", "licence", "changelog", "citation")
SPLITS = "dataset_dict.json"
TRAIN = "train"
_PROBE_BYTES = 1 << 16


def find_files(path: Path, reading: Reading, told: FilesRead) -> dict[Path, str]:
    """The files to read, sorted, each with its format: the path itself, or those of the folder that may hold records.

    Raises DataError where the path is missing, unreadable, not a file or folder, or a folder with nothing to take.
    """
    with readable(path):
        mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return {path: kind_of(path, reading)}
    if not stat.S_ISDIR(mode):
        raise DataError(f"{path}: neither a file nor a folder; the data must be readable again after a restart")
    with readable(path):
        files = _without_notes(_once(_walk(path, told), told), reading, told)
    if not files:
        left = f" ({len(told.left_out)} left out)" if told.left_out else ""
        raise DataError(
            f"{path}: the folder holds no files (hidden ones do not count){left}; put .jsonl or text files there"
        )
    return files


def _walk(folder: Path, told: FilesRead) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here, wanted = Path(parent), []
        splits = _other_splits(here, folders, names)
        for name in folders:
            why = _why_no_folder(here / name)
            if name in splits:
                why = f"another split than {TRAIN}"
            if why:
                told.left_out[here / name] = why
            else:
                wanted.append(name)
        folders[:] = wanted
        for name in names:
            why = _why_no_file(here / name)
            if why:
                told.left_out[here / name] = why
            else:
                yield here / name


def _other_splits(folder: Path, folders: list[str], names: list[str]) -> set[str]:
    """The splits of a saved data set that are not to train on. Raises DataError where it is not clear which is."""
    if SPLITS not in names or len(folders) < 2:
        return set()
    if TRAIN not in folders:
        raise DataError(f"{folder}: a data set with the splits {', '.join(sorted(folders))}; give the folder of one")
    return set(folders) - {TRAIN}


def _why_no_folder(folder: Path) -> str:
    if folder.name.startswith("."):
        return "hidden"
    if folder.name == "__pycache__":
        return "compiled Python"
    parent = folder.parent.resolve()
    return "a link to a folder around it" if folder.resolve() in (parent, *parent.parents) else ""


def _why_no_file(file: Path) -> str:
    name = file.name.lower()
    if name.startswith("."):
        return "hidden"
    if not file.is_file():  # Only regular files: opening a pipe would wait for ever.
        return "a link to nothing" if file.is_symlink() else "no regular file"
    if name.endswith(BACKUPS):
        return "a backup or a part of a file"
    if name in DESCRIPTIONS:
        return "describes a data set"
    return "a cache" if name.startswith("cache-") and name.endswith(".arrow") else ""


def _once(files: Iterator[Path], told: FilesRead) -> list[Path]:
    """Each file once, by its own name rather than by that of a link."""
    seen: dict[tuple[int, int], Path] = {}
    for file in sorted(files, key=lambda file: (file.resolve() != file.absolute(), file)):
        found = file.stat()
        first = seen.setdefault((found.st_dev, found.st_ino), file)
        if first is not file:
            told.left_out[file] = f"the same file as {first.name}"
    return sorted(seen.values())


def _without_notes(files: list[Path], reading: Reading, told: FilesRead) -> dict[Path, str]:
    """The files without those that are about the data, where there are files of records. Elsewhere a ``.json`` file
    without records, such as that of a program, is a text as the files around it."""
    kinds = {file: kind_of(file, reading) for file in files}
    notes = {file for file, kind in kinds.items() if kind == "json" and not _holds_records(file, reading)}
    if all(kinds[file] == "plain" or file in notes for file in files):
        return {**kinds, **dict.fromkeys(notes, "plain")} if "plain" in kinds.values() else kinds
    notes |= {file for file, kind in kinds.items() if kind == "plain" and file.name.lower().startswith(ABOUT)}
    told.left_out.update(dict.fromkeys(notes, "about the data"))
    return {file: kind for file, kind in kinds.items() if file not in notes}


def _holds_records(path: Path, reading: Reading) -> bool:
    """Whether a ``.json`` file begins with an array, or with an object that has a key of records."""
    with path.open("rb") as file:
        begin = uncompressed(path, file).read(_PROBE_BYTES)
    encoding = "utf-16" if begin[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = begin.decode(encoding, "replace").lstrip()
    if text.startswith("["):
        return text[1:].lstrip()[:1] in ("{", "]", "")
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return any(f'"{key}"' in text for key in KNOWN)
    return isinstance(value, dict) and bool(set(value) & {*KNOWN, *reading.columns.values()})
