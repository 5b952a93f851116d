"""The node's own folder: one node at a time, and nothing of an earlier run overwritten.

::

    DIR/lock            held while a node runs here
    DIR/run.json        what the nodes agreed on
    DIR/metrics.jsonl   one line per step and per evaluation
    DIR/start/          the starting values of visited blocks, for keyframes
    DIR/final/          the tuned model (DIR/stopped/ after an early stop)
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from deca_node.protocol.errors import StorageError
from deca_node.protocol.run import Agreement

METRICS = "metrics.jsonl"


@contextlib.contextmanager
def node_directory(path: Path) -> Iterator[Path]:
    """Make, lock and clear the folder. Raises StorageError where it is in use, finished or not writable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / "lock").open("w", encoding="ascii")
    except OSError as problem:
        raise StorageError(
            f"cannot use {path} as this node's folder: {problem.strerror}; choose another --dir"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"another node runs in {path}; choose another --dir") from None
        lock.write(str(os.getpid()))
        lock.flush()
        for name in ("final", "stopped"):
            if (path / name).exists():
                raise StorageError(
                    f"{path} holds the model of an earlier run ({name}/); move it away, or choose another --dir"
                )
        _set_aside(path / METRICS)
        shutil.rmtree(path / "start", ignore_errors=True)
        yield path


def write_run(path: Path, agreement: Agreement) -> None:
    """Keep what was agreed on, for people and for reports."""
    record = {"fingerprint": agreement.fingerprint, "agreement": dict(agreement.fields)}
    (path / "run.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _set_aside(metrics: Path) -> None:
    if metrics.exists():
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(metrics.stat().st_mtime))
        metrics.rename(metrics.with_name(f"metrics-{stamp}.jsonl"))
