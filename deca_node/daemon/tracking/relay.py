"""Numbers on their way to a tracker's own process.

A service's package is large, may block on its network, and runs threads of its own, so it stays out of the node's
process. The node writes lines into a pipe and never waits. Where the tracker is too slow for that, or has failed,
numbers are lost, the log says so once, and training goes on.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from deca_node.daemon.logs import log
from deca_node.daemon.tracking.services import Begin

WAITING_BYTES_MAX = 4 << 20
"""So much may wait for a tracker."""
LAST_SECONDS = 20.0
"""The time that a tracker has at the end."""


class Relay:
    """One tracker's process. Raises OSError if it cannot be started."""

    def __init__(self, service: str, begin: Begin, environment: Mapping[str, str] | None = None) -> None:
        self._service = service
        self._output = Path(begin.folder) / f"{service}.log"
        Path(begin.folder).mkdir(parents=True, exist_ok=True)
        with self._output.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "deca_node.daemon.tracking.child"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env={**os.environ, **(environment or {})},
                process_group=0,  # a signal to the node must not end the tracker before the last numbers
            )
        assert self._process.stdin is not None
        self._pipe: IO[bytes] | None = self._process.stdin
        os.set_blocking(self._pipe.fileno(), False)
        self._waiting = bytearray()
        self._lost, self._told = 0, False
        self._write({"service": service, **dataclasses.asdict(begin)})

    def add(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        """Add numbers at one step, under ``group/name``. Values of other types are skipped."""
        numbers = {f"{group}/{name}": value for name, value in figures.items() if isinstance(value, int | float)}
        self._write([numbers, step])

    def close(self) -> None:
        """No more numbers will come."""
        self._push()

    def finish(self, seconds: float = LAST_SECONDS) -> None:
        """Wait until the tracker has sent what is left. This blocks."""
        if self._pipe is not None:
            os.set_blocking(self._pipe.fileno(), True)
            with contextlib.suppress(OSError):
                self._pipe.write(self._waiting)
            self._pipe.close()
            self._pipe = None
        try:
            if self._process.wait(seconds):
                self._over()
        except subprocess.TimeoutExpired:
            log.warning("%s still sends curves; its process %d goes on", self._service, self._process.pid)

    def _write(self, fact: Any) -> None:
        if self._pipe is None:
            return
        if len(self._waiting) > WAITING_BYTES_MAX:
            self._lose()
        else:
            self._waiting += json.dumps(fact).encode() + b"\n"
        self._push()

    def _push(self) -> None:
        """Write as much as the pipe takes now."""
        try:
            while self._pipe is not None and self._waiting:
                written = os.write(self._pipe.fileno(), self._waiting)
                del self._waiting[:written]
        except BlockingIOError:
            return
        except OSError:
            self._end()

    def _lose(self) -> None:
        self._lost += 1
        if self._lost == 1:
            log.warning(
                "%s takes the curves more slowly than they come; some are lost; training goes on", self._service
            )

    def _end(self) -> None:
        """The tracker has ended early."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                self._pipe.close()
            self._pipe = None
            self._over()

    def _over(self) -> None:
        if self._told:
            return
        self._told = True
        log.warning("curves no longer go to %s: %s; training goes on", self._service, self._why())

    def _why(self) -> str:
        """The last line that the tracker printed."""
        lines = self._output.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it ended") + f" (see {self._output})"
