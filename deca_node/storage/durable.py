"""Files and folders that are whole or absent after a crash: written aside, made durable, then renamed.

A crash or a full disk leaves at most these beside NAME::

    NAME.partial     a file that was being written
    .NAME.partial    a folder that was being written
    .NAME.old        the folder that was being replaced

No reader mistakes them for NAME. :func:`repair_folder` and :func:`tidy` remove them, or bring the replaced folder back.
Checksums are computed while the bytes are written, so a file of any size takes one pass and little memory.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PARTIAL = ".partial"
OLD = ".old"


class Sum(NamedTuple):
    """A file's length in bytes, and its SHA-256 in hex."""

    bytes: int
    sha256: str


# --- files ------------------------------------------------------------------------------------------


def write_file(path: Path, chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> Sum:
    """Write chunks of bytes to ``path``, whole or not at all. After it returns, a power cut changes nothing. A new file
    has ``mode``, as far as the process's mask allows it.

    Raises OSError; then the earlier file is still at ``path``.
    """
    aside = path.with_name(path.name + PARTIAL)
    try:
        written = _write(aside, chunks, mode)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return written


def publish_file(aside: Path, path: Path) -> None:
    """Give a finished file its name: its bytes are made durable first, and its name afterwards. Raises OSError."""
    sync_file(aside)
    aside.replace(path)
    sync_folder(path.parent)


def sum_file(path: Path) -> Sum:
    """The length and SHA-256 of a file as it is now. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Sum(file.tell(), digest)


# --- folders ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Write a folder anew, whole or not at all: the body fills the empty folder that it is given.

    After the body has ended, all that it wrote is made durable, and two renames put the new folder in place of the
    earlier one. Raises OSError; then the earlier folder is still there, or no folder if there was none. After a crash
    at any point :func:`repair_folder` leaves one of the two there, whole.
    """
    repair_folder(folder)
    make_folder(folder.parent)
    aside = _aside(folder)
    try:
        aside.mkdir()
        yield aside
        sync_tree(aside)
        swap_folder(aside, folder)
    finally:
        # After a success nothing is left to remove.
        shutil.rmtree(aside, ignore_errors=True)


def repair_folder(folder: Path) -> None:
    """Undo what a crash of :func:`replace_folder` left half done: nothing lies beside the folder afterwards.

    Raises OSError.
    """
    if (old := _old(folder)).exists():
        _settle(old, folder)
    if (aside := _aside(folder)).exists():
        remove(aside)


def tidy(parent: Path) -> None:
    """Undo in a folder what crashes left of :func:`write_file` and :func:`replace_folder`. Raises OSError.

    This removes every name that ends as theirs do, so it is for folders that hold nothing but what they wrote.
    """
    if not parent.is_dir():
        return
    for path in list(parent.iterdir()):
        if path.name.endswith(OLD):
            # Earlier releases wrote NAME.old without the leading dot.
            _settle(path, path.with_name(path.name.removesuffix(OLD).removeprefix(".")))
        elif path.name.endswith(PARTIAL):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, and make their names durable. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    # Names may be made in a folder that may not be read. Such a folder cannot be opened to be flushed.
    with contextlib.suppress(PermissionError):
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable. Raises OSError."""
    _sync(path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    _sync(path)


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable. Raises OSError."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


# --- steps ------------------------------------------------------------------------------------------


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{PARTIAL}")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{OLD}")


def swap_folder(aside: Path, folder: Path) -> None:
    """Rename a durable folder into place. Raises OSError; then all names are as they were, if the disk allows it."""
    old = _old(folder)
    if folder.exists():
        folder.replace(old)
    try:
        aside.replace(folder)
        sync_folder(folder.parent)
    except OSError:
        with contextlib.suppress(OSError):
            if folder.exists():
                folder.replace(aside)
            if old.exists():
                old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _settle(old: Path, folder: Path) -> None:
    """After a crash: bring the replaced folder back if no other has its name, and else remove it."""
    if not folder.exists():
        old.replace(folder)
        sync_folder(folder.parent)
        return
    # The name of the new folder must be durable before the earlier folder is gone.
    sync_folder(folder.parent)
    remove(old)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, chunks: Iterable[bytes | memoryview], mode: int) -> Sum:
    digest, total = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        for chunk in chunks:
            digest.update(chunk)
            total += len(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Sum(total, digest.hexdigest())
