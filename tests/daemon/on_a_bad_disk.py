"""Run ``deca-node`` on a disk that refuses writes to some files: ``python on_a_bad_disk.py PLAN ARGUMENTS...``.

PLAN is JSON: ``{"folder": DIR, "name": NAME, "fault": FAULT, "from_loop": BOOL, "seen": FILE}``.

``name``       the file below DIR that cannot be written; a folder stands for all in it, "*" for every file
``fault``      "read-only": every change fails with EROFS; "full": the file can be made, but takes no byte (ENOSPC);
               "killed": the process is killed at change number ``at`` (from 0) of any file; "none": nothing fails
``from_loop``  the disk is sound until the node has started
``seen``       gets the names of all files that this process changed, one a line
"""

import builtins
import errno
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

PLAN: dict[str, Any] = json.loads(sys.argv.pop(1))
FOLDER = Path(PLAN["folder"]).resolve()
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
    "os.truncate": (0,),
}
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

seen: set[str] = set()
state = {"armed": not PLAN["from_loop"]}


def below(path: Any) -> str:
    """The part of the path below DIR that a table would name; empty for other paths."""
    if isinstance(path, int):
        path = os.readlink(f"/proc/self/fd/{path}") if path > 2 else "/"  # noqa: PTH115
    try:
        relative = Path(os.path.abspath(os.fsdecode(path))).relative_to(FOLDER)  # noqa: PTH100
    except (TypeError, ValueError):
        return ""
    return relative.parts[0].removesuffix(".partial") if relative.parts else "."


def hit(path: Any, *faults: str) -> bool:
    name = below(path)
    if name:
        seen.add(name)
        _count()
    return bool(name) and state["armed"] and PLAN["fault"] in faults and PLAN["name"] in {name, "*"}


def _count() -> None:
    if PLAN["fault"] == "killed":
        if PLAN["at"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        PLAN["at"] -= 1


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _mode, flags = arguments
        if flags & WRITES and hit(path, "read-only"):
            raise READ_ONLY
    elif event in CHANGES:
        hits = [hit(arguments[at], "read-only") for at in CHANGES[event]]
        if any(hits):
            raise READ_ONLY
    elif event == "socket.bind" and isinstance(arguments[1], str) and hit(arguments[1], "read-only", "full"):
        raise READ_ONLY if PLAN["fault"] == "read-only" else FULL


class BadFile(io.FileIO):
    """A file on the bad disk, whichever way it was opened."""

    def write(self, data: Any) -> int:
        self._fail()
        return super().write(data) or 0

    def truncate(self, size: int | None = None) -> int:
        if hit(self.fileno(), "read-only"):
            raise READ_ONLY
        return super().truncate(size)

    def _fail(self) -> None:
        if hit(self.fileno(), "read-only"):
            raise READ_ONLY
        if hit(self.fileno(), "full"):
            raise FULL


plain_open, plain_write, plain_fsync = io.open, os.write, os.fsync


def bad_open(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
    opened = plain_open(file, mode, buffering, *more, **options)
    if not set(mode) & set("wax+") or not below(file):
        return opened
    opened.close()
    raw = BadFile(
        file, mode.replace("b", "").replace("t", "").replace("w", "r+") if "w" in mode else mode.replace("b", "")
    )
    if buffering == 0:
        return raw
    buffered = io.BufferedRandom(raw) if "+" in raw.mode else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, **options)


def bad_write(descriptor: int, data: Any) -> int:
    if descriptor > 2 and hit(descriptor, "read-only", "full"):
        raise READ_ONLY if PLAN["fault"] == "read-only" else FULL
    return plain_write(descriptor, data)


def counted_fsync(descriptor: int) -> None:
    hit(descriptor)
    plain_fsync(descriptor)


def main() -> int:
    from deca_node.daemon.daemon import Daemon
    from deca_node.daemon.trainer import rank

    rank.BOOT = str(Path(__file__).with_name("quick_trainer.py"))
    plain_loop = Daemon._loop

    async def loop(self: Daemon) -> None:
        state["armed"] = True
        await plain_loop(self)

    Daemon._loop = loop  # type: ignore[method-assign]
    builtins.open = io.open = bad_open  # type: ignore[assignment]
    os.write = bad_write  # type: ignore[assignment]
    os.fsync = counted_fsync  # type: ignore[assignment]
    sys.addaudithook(audit)
    from deca_node.__main__ import main as deca_node

    code = deca_node()
    state["armed"] = False
    if PLAN["seen"]:
        Path(PLAN["seen"]).write_text("".join(f"{name}\n" for name in sorted(seen)))
    return code


if __name__ == "__main__":
    sys.exit(main())
