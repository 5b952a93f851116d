"""The package index from which the image's build takes torch."""

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

INDEX_PORT = 47113
"""Any port will do; the engine knows a layer by the index, too, so it should be the same in every build."""


@contextmanager
def torch_index(work: Path) -> Iterator[str]:
    """The index for the build: ``TORCH_INDEX``, or the folder ``TORCH_WHEELS`` served on loopback.

    The engine knows a layer by the index, too, so the port stays the same from build to build if it is free.
    """
    wheels = os.environ.get("TORCH_WHEELS", "")
    if not wheels:
        yield os.environ.get("TORCH_INDEX", "")
        return
    simple = work / "index" / "simple"
    simple.mkdir(parents=True, exist_ok=True)
    link = simple / "torch"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(wheels).resolve())
    handler = partial(QuietHandler, directory=str(work / "index"))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", INDEX_PORT), handler)
    except OSError:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()


def index_of_last_build(work: Path) -> str:
    """The index of the build whose layers are there, which a short test does not ask again."""
    known = work / "torch-index"
    return known.read_text() if known.exists() else os.environ.get("TORCH_INDEX", "")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a log line per request."""

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  (the base class names it so)
        """Log nothing."""
