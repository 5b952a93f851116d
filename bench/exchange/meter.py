"""The resources that an exchange uses: processor time, memory and bytes on the wire.

They are measured from outside and in the same way for all contestants, since a library may start processes, and threads
that no Python call sees. All descendants of the started processes count.
"""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")


@dataclass(frozen=True)
class Usage:
    """The resources of one exchange, over all parties. ``wire_bytes`` includes TCP's headers and all other traffic of
    the machine with itself meanwhile; None if the system does not tell. Shared memory counts in each process."""

    cpu_seconds: float
    peak_bytes: int
    wire_bytes: int | None


class Meter:
    """Reads the counters of processes and their descendants, before and after."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]

    def start(self) -> None:
        """Begin an exchange. Peaks restart at the present memory."""
        for process in self._tree():
            _reset_peak(process.pid)
        self._wire = _wire_bytes()
        self._cpu = self._cpu_seconds()

    def stop(self) -> Usage:
        """End the exchange."""
        cpu = self._cpu_seconds() - self._cpu
        wire = _wire_bytes()
        peak = sum(_peak_bytes(process) for process in self._tree())
        return Usage(cpu, peak, None if wire is None or self._wire is None else wire - self._wire)

    def processes(self) -> list[psutil.Process]:
        """All processes that are alive now, leaves first."""
        return self._tree()[::-1]

    def _tree(self) -> list[psutil.Process]:
        found = []
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [root, *root.children(recursive=True)]
        return found

    def _cpu_seconds(self) -> float:
        return sum(_cpu_seconds(process) for process in self._tree())


def _cpu_seconds(process: psutil.Process) -> float:
    """The resources that a process and its ended children have used."""
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        of_children = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        try:
            # The clock that clock_getcpuclockid(3) makes of a process id; psutil counts in steps of 10 ms.
            return time.clock_gettime(~process.pid << 3 | 2) + float(of_children)
        except (AttributeError, OSError):
            return float(times.user + times.system + of_children)
    return 0.0


def _peak_bytes(process: psutil.Process) -> int:
    with contextlib.suppress(OSError, psutil.Error):
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            return int(process.memory_info().rss)
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)
    return 0


def _reset_peak(pid: int) -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")


def _wire_bytes() -> int | None:
    return int(LOOPBACK.read_text(encoding="utf-8")) if LOOPBACK.exists() else None
