"""The node's own folder: one node uses it at a time, and results of an earlier run are never overwritten.

docs/ARCHITECTURE.md lists what lies in the folder.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from deca_node.protocol.agreed.agreement import Agreement, differing_settings
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import StorageError
from deca_node.storage.durable import repair_folder, write_file
from deca_node.storage.jsons import UNFIT, parse

FINAL = "final"
METRICS = "metrics.jsonl"
SETTINGS = "settings.json"
ORIGIN = "deca.json"
"""A file in the folder of a tuned model that is not the others', beside its weights: why it is not."""


@contextlib.contextmanager
def node_directory(path: Path) -> Iterator[Path]:
    """Make the folder, lock it, and repair what a crash left of a model that was being saved.

    Raises StorageError if the folder is in use or not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / "lock").open("w", encoding="ascii")
    except OSError as problem:
        raise _unusable(path, problem) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"another node runs in {path}; choose another --dir") from None
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            repair_folder(path / FINAL)
        except OSError as problem:
            raise _unusable(path, problem) from None
        if not (path / "checkpoints").exists():
            _set_aside(path / METRICS)
        yield path


def finished(path: Path, settings: RunSettings) -> bool:
    """Whether the folder holds the tuned model of this run; then the run is complete for this node.

    Raises StorageError if it holds the tuned model of another run, which must not be overwritten.
    """
    if not (path / FINAL).exists():
        return False
    fields = agreed_fields(path)
    differing = differing_settings(fields, settings)
    if differing:
        raise StorageError(
            f"{path} holds the tuned model of another run ({', '.join(differing[:3])} differ); "
            "move it away, or choose another --dir"
        )
    return True


def agreed_fields(path: Path) -> dict[str, str]:
    """The agreed fields in run.json; empty if the file is missing or damaged."""
    try:
        return dict(parse((path / "run.json").read_text(encoding="utf-8"))["agreement"])
    except (OSError, *UNFIT):
        return {}


def write_origin(model: Path, alone: str) -> None:
    """Note in the folder of a tuned model that it is one node's own, and why. Raises OSError."""
    write_file(model / ORIGIN, [(json.dumps({"alone": alone}, indent=1) + "\n").encode()])


def alone_because(model: Path) -> str:
    """Why the tuned model in this folder is one node's own, as a sentence; empty if nothing says so."""
    try:
        return str(parse((model / ORIGIN).read_text(encoding="utf-8"))["alone"])
    except (OSError, *UNFIT):
        return ""


def write_run(path: Path, agreement: Agreement, start_model: str) -> None:
    """Write run.json: the agreement, and the model that the run starts from. Raises OSError."""
    record = {
        "fingerprint": agreement.fingerprint,
        "agreement": dict(agreement.fields),
        # An absolute path for a folder, and the id itself for a model of the hub.
        "start_model": str(Path(start_model).resolve()) if Path(start_model).exists() else start_model,
    }
    write_file(path / "run.json", [(json.dumps(record, indent=2, sort_keys=True) + "\n").encode()])


def _unusable(path: Path, problem: OSError) -> StorageError:
    return StorageError(f"cannot use {path} as this node's folder: {problem.strerror}; choose another --dir")


def _set_aside(metrics: Path) -> None:
    if metrics.exists():
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(metrics.stat().st_mtime))
        metrics.rename(metrics.with_name(f"metrics-{stamp}.jsonl"))
