"""The node's own folder: one node uses it at a time, and results of an earlier run are never overwritten.

docs/ARCHITECTURE.md lists what lies in the folder.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from deca_node.protocol.agreed.agreement import Agreement, differing_settings, settings_fields
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout
from deca_node.protocol.errors import DecaError, SettingsError, StorageError
from deca_node.storage.best import repair_best
from deca_node.storage.durable import PARTIAL, make_folder, remove, repair_folder, write_file
from deca_node.storage.jsons import UNFIT, parse

FINAL = "final"
METRICS = "metrics.jsonl"
LOG = "node.log"
SETTINGS = "settings.json"
JOINED_RUN = "run.toml"
"""The run's settings, as a member gave them to a node that joined."""
HELDOUT = "heldout.json"
ORIGIN = "deca.json"
"""A file in the folder of a tuned model that is not the others', beside its weights: why it is not."""

REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors of the system about a path or its permissions, which a person must correct. A restart does not help."""


@contextlib.contextmanager
def node_directory(path: Path) -> Iterator[Path]:
    """Make the folder, lock it, and repair what a crash left of a file or a model that was being written.

    Raises StorageError if the folder is in use or not writable, and SettingsError if the system refuses it to this
    user.
    """
    try:
        make_folder(path)
        # Not truncated: until the lock is held, the process number in it is that of the node that holds it.
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as problem:
        raise unusable(path, problem) from None
    try:
        _take(lock, path)
        try:
            for half in path.glob(f"*.json{PARTIAL}"):
                remove(half)
            repair_folder(path / FINAL)
            fresh = not (path / "checkpoints").exists()
            repair_best(path, fresh=fresh)
        except OSError as problem:
            raise unusable(path, problem) from None
        if fresh:
            _set_aside(path / METRICS)
            with contextlib.suppress(OSError):
                (path / HELDOUT).unlink(missing_ok=True)
        yield path
    finally:
        os.close(lock)


def process_of(path: Path) -> int:
    """The process number of the node that locked this folder last, whether it runs or has ended; 0 if none is told."""
    try:
        return int((path / "lock").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def unusable(path: Path, problem: OSError) -> DecaError:
    """The error for a node's folder that cannot be used: SettingsError where a person must correct the path or its
    rights, else StorageError."""
    said = f"cannot use {path} as this node's folder: {problem.strerror}"
    if problem.errno in REFUSED:
        return SettingsError(f"{said}; give it to user {os.geteuid()} (chown), or choose another --dir")
    return StorageError(f"{said}; choose another --dir")


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


def write_heldout(path: Path, settings: RunSettings, heldout: Heldout) -> None:
    """Write heldout.json: what this node has told the members about its held-out losses. Raises OSError."""
    record = {"run": _settings_sum(settings), **dataclasses.asdict(heldout)}
    write_file(path / HELDOUT, [(json.dumps(record) + "\n").encode()])


def read_heldout(path: Path, settings: RunSettings) -> Heldout:
    """What an earlier start in this folder has told in this run; nothing if the file is missing or damaged."""
    try:
        record = parse((path / HELDOUT).read_text(encoding="utf-8"))
        losses = tuple((int(number), None if loss is None else float(loss)) for number, loss in record["losses"])
        heldout = Heldout(losses, None if record["stop_at"] is None else int(record["stop_at"]))
        return heldout if heldout.sound and record["run"] == _settings_sum(settings) else NOTHING_TOLD
    except (OSError, *UNFIT):
        return NOTHING_TOLD


def _settings_sum(settings: RunSettings) -> str:
    return Agreement(settings_fields(settings)).fingerprint


def write_run(path: Path, agreement: Agreement, start_model: str) -> None:
    """Write run.json: the agreement, and the model that the run starts from. Raises StorageError.

    If an earlier start has written the same, nothing is written, so a node can start again on a full disk.
    """
    record = {
        "fingerprint": agreement.fingerprint,
        "agreement": dict(agreement.fields),
        # An absolute path for a folder, and the id itself for a model of the hub.
        "start_model": str(Path(start_model).resolve()) if Path(start_model).exists() else start_model,
    }
    content, file = (json.dumps(record, indent=2, sort_keys=True) + "\n").encode(), path / "run.json"
    try:
        if not (file.exists() and file.read_bytes() == content):
            write_file(file, [content])
    except OSError as problem:
        raise StorageError(
            f"cannot write {file}: {problem.strerror}; make room, or repair the disk, and start again"
        ) from None


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(f"another node runs in {path}; choose another --dir") from None
    except OSError as problem:
        raise unusable(path, problem) from None
    # The lock counts. The number of its process is for people, so a full disk may keep it from being written.
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())


def _set_aside(metrics: Path) -> None:
    """Begin a new file of metrics for a new run. If the disk refuses, the new run's lines follow the old ones."""
    with contextlib.suppress(OSError):
        if metrics.exists():
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(metrics.stat().st_mtime))
            metrics.rename(metrics.with_name(f"metrics-{stamp}.jsonl"))
