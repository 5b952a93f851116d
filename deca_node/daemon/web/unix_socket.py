"""A Unix socket at a path of any length, for this user only.

The kernel takes socket paths of up to about a hundred bytes, and the path of a node's folder may be longer. Then the
folder is opened, and the socket is named through the open folder, which makes a short path.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

PATH_BYTES_MAX = 103
"""A length that every system takes. Linux takes four bytes more."""

OWNER_ONLY = 0o600
BACKLOG = 128


def bind(path: Path) -> socket.socket:
    """A listening socket at ``path``. The socket of a dead process is replaced. Raises OSError."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            bound.bind(name)
            # A client can connect only after listen, so the mode is right before the first one.
            path.chmod(OWNER_ONLY)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def connect(path: Path, timeout_seconds: float) -> socket.socket:
    """A socket connected to the one at ``path``. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout_seconds)
        with _short(path) as name:
            made.connect(name)
    except OSError:
        made.close()
        raise
    return made


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
