"""Files that are whole or not there: written aside, made durable, renamed.

A crash or a full disk leaves at most ``NAME.partial``, which nobody takes for NAME and the next start removes. Sums
are taken while the bytes pass, so a file of any size is written in one pass and in no memory of its own. No torch
here.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PARTIAL = ".partial"
OLD = ".old"


class Sum(NamedTuple):
    """What a file must measure: its length in bytes and its SHA-256 in hex."""

    bytes: int
    sha256: str


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> Sum:
    """Write the chunks (of bytes) to ``path``, whole or not at all; once it returns a power cut changes nothing.

    Raises OSError as the system does; what stood at ``path`` then stands there still.
    """
    aside = path.with_name(path.name + PARTIAL)
    try:
        written = _write(aside, chunks)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return written


def sum_file(path: Path) -> Sum:
    """What the file measures now. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Sum(file.tell(), digest)


def swap_folder(aside: Path, folder: Path) -> None:
    """Put a finished folder, whose files are durable, in place of ``folder``, whole or not at all.

    What stood there is moved to ``NAME.old`` meanwhile: :func:`tidy` brings it back after a power cut between the
    two renames. Raises OSError; then all is as it was, but for ``aside``.
    """
    old = folder.with_name(folder.name + OLD)
    if folder.exists():
        folder.replace(old)
    try:
        sync_folder(aside)
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


def tidy(folder: Path) -> None:
    """Undo in ``folder`` what a crash left half done by the two functions above. Raises OSError."""
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        if path.name.endswith(PARTIAL):
            remove(path)
        elif path.name.endswith(OLD):
            instead = path.with_name(path.name.removesuffix(OLD))
            if instead.exists():
                remove(path)
            else:
                path.replace(instead)


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def make_folder(path: Path) -> None:
    """Make a folder whose name a power cut does not take back. Raises OSError."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> Sum:
    digest, total = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
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
