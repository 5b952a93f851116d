"""Checks of this machine before a start: folder, disk, ports, environment, clock. They change and leave nothing.

The checks call the functions of a start, so both refuse the same things. Problems that a start would meet hours later,
such as a full disk, are estimated here.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from deca_node.daemon.diagnosis.findings import Finding, failed, passed, warned
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.environment import redirecting
from deca_node.protocol.agreed.agreement import differing_settings
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.units import bytes_text
from deca_node.storage.folder import finished
from deca_node.storage.manifest import DamagedError, checkpoints, read_manifest

TRIAL_BYTES = 32 << 20
"""The size of the file that is written and made durable to measure the disk."""
SLOW_BYTES_PER_SECOND = 20e6
CLOCK_GRACE_SECONDS = 60.0


# --- the folder --------------------------------------------------------------------------------------


def check_folder(directory: Path, settings: RunSettings) -> Finding:
    """Check the node's folder for this run. Raises StorageError as a start would."""
    check = "folder"
    existing = existing_part(directory)
    if not os.access(existing, os.W_OK | os.X_OK):
        return failed(
            check, f"this user may not write to {existing}", "correct its permissions, or choose another --dir"
        )
    if pid := _held_by(directory / "lock"):
        says = f"a node runs in {directory} (process {pid})"
        return warned(check, says, "do nothing, if this is the node you mean", process=pid)
    if finished(directory, settings):
        do = "do nothing, or choose another --dir for another run: a start here exits at once"
        return warned(check, f"the run is complete in {directory}", do)
    found = checkpoints(directory)
    if not found:
        return passed(check, f"{directory} is free for a new run")
    return _check_checkpoint(found[0], settings)


def _check_checkpoint(newest: Path, settings: RunSettings) -> Finding:
    check = "folder"
    try:
        manifest = read_manifest(newest)
    except DamagedError as problem:
        return warned(check, f"{problem}", "check the disk; a start uses the checkpoint before it")
    fields = manifest.agreement.fields
    differing = differing_settings(fields, settings)
    if differing:
        says = f"a start cannot go on from {newest}: the run differs in {', '.join(differing[:5])}"
        return failed(check, says, "use the settings of that checkpoint, or choose another --dir")
    at = manifest.position
    return passed(check, f"a start goes on from activation {at.activation} step {at.inner}", activation=at.activation)


def _held_by(lock: Path) -> str:
    """The process that holds the folder, or an empty text. The lock is released at once."""
    try:
        with lock.open("r", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(20).strip() or "unknown"
    except OSError:
        pass
    return ""


def existing_part(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


# --- the disk ----------------------------------------------------------------------------------------


def check_disk(directory: Path, parts: Mapping[str, int]) -> Finding:
    """Check that the disk has room for everything that the node will write, and measure its speed. ``parts`` holds
    bytes by purpose."""
    check, existing = "disk", existing_part(directory)
    needed, there = sum(parts.values()), folder_size(directory)
    free, more = shutil.disk_usage(existing).free, max(needed - there, 0)
    speed = write_speed(existing, min(TRIAL_BYTES, free // 2))
    facts = {"needed_bytes": needed, "present_bytes": there, "free_bytes": free, "parts_bytes": dict(parts)}
    facts |= {"write_bytes_per_second": speed}
    for_checkpoints = parts.get("checkpoints", 0) + parts.get("blocks", 0) + parts.get("start", 0)
    says = (
        f"the run will write {bytes_text(more)} to {directory}, which has {bytes_text(free)} free and takes "
        f"{bytes_text(speed)}/s (of {bytes_text(needed)} in all, {bytes_text(for_checkpoints)} are for checkpoints)"
    )
    if more > free:
        return failed(check, says, f"make room for {bytes_text(more - free)} more, or choose another --dir", **facts)
    if speed < SLOW_BYTES_PER_SECOND:
        seconds = parts.get("checkpoints", 0) / 2 / max(speed, 1.0)
        return warned(
            check, says, f"use a faster disk: one checkpoint within a visit takes {seconds:.0f} s here", **facts
        )
    return passed(check, says, **facts)


def write_speed(folder: Path, nbytes: int) -> float:
    """Bytes per second until they are durable; 0 if none could be written. The file is removed again."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            chunk = os.urandom(1 << 20)
            for start in range(0, nbytes, len(chunk)):
                file.write(chunk[: nbytes - start])
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return 0.0
    return nbytes / max(time.monotonic() - began, 1e-6)


def folder_size(folder: Path) -> int:
    """The size of all files below a folder. Files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


# --- ports -------------------------------------------------------------------------------------------


def check_port(check: str, address: Address, flag: str) -> Finding:
    """Check that a server can listen on this address."""
    try:
        _listen(address)
    except (OSError, UnicodeError) as problem:
        says = f"cannot listen on {address}: {getattr(problem, 'strerror', None) or problem}"
        return failed(check, says, f"stop the program that listens there, or choose another {flag}")
    return passed(check, f"{address} is free")


def _listen(address: Address) -> None:
    family, kind, number, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, number) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(where)
        trial.listen(1)


# --- the environment ---------------------------------------------------------------------------------


def check_environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Name the variables that send other programs' traffic elsewhere, if there are any."""
    if names := redirecting(environ):
        says = (
            f"the environment sets {', '.join(names)}: traffic between nodes goes directly to the peers and ignores "
            "these variables; only downloads from the model hub use a proxy"
        )
        yield passed("environment", says, names=names)


# --- the clock ---------------------------------------------------------------------------------------


def check_clock(now: float, files: Iterable[Path], offsets: Mapping[str, float]) -> Finding:
    """Check whether this clock can be right. ``now`` is its time in unix seconds, ``files`` were written before, and
    ``offsets`` says how many seconds each peer's clock is ahead."""
    check, dates = "clock", list(_dates(files))
    newest = max(dates, default=(now, ""))
    facts = {"offsets_seconds": dict(offsets)}
    if newest[0] > now + CLOCK_GRACE_SECONDS:
        says = f"this clock says {stamp(now)}, and {newest[1]} was written on {stamp(newest[0])}"
        return failed(check, says, "set the clock: certificates are checked against it", **facts)
    if not offsets:
        return passed(check, f"{stamp(now)}; no peer told its time", **facts)
    name, furthest = max(offsets.items(), key=lambda item: abs(item[1]))
    if abs(furthest) > CLOCK_GRACE_SECONDS:
        where = "ahead of" if furthest > 0 else "behind"
        says = f"{stamp(now)}; the clock of {name} is {abs(furthest):,.0f} s {where} this one"
        return warned(check, says, "set the clock that is wrong: certificates are checked against it", **facts)
    return passed(check, f"{stamp(now)}; the furthest peer is {abs(furthest):.1f} s off ({name})", **facts)


def _dates(files: Iterable[Path]) -> Iterator[tuple[float, str]]:
    for path in files:
        with contextlib.suppress(OSError):
            yield path.stat().st_mtime, str(path)


def stamp(unix_seconds: float) -> str:
    """A date for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_seconds))
