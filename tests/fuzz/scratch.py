"""A folder for the files that decoders read: in memory where the system has such a place, and gone at the end."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

IN_MEMORY = Path("/dev/shm")


@functools.cache
def scratch() -> Path:
    """The folder of this process."""
    folder = Path(tempfile.mkdtemp(prefix="deca-fuzz-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fresh(name: str) -> Path:
    """An empty folder in it."""
    folder = scratch() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def file(name: str, data: bytes) -> Path:
    """A file in it, with this content and nothing else."""
    path = scratch() / name
    path.write_bytes(data)
    return path
