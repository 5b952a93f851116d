"""Notices that a process of the idle class wants cores and hardly gets any.

Linux counts for every thread how long it ran, and how long it was ready to run and waited for a core. A process that
waits for messages or files counts as neither, so no knowledge of its work is needed.

Sources: Linux, Documentation/scheduler/sched-stats.rst (/proc/PID/schedstat).
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LOOK_SECONDS = 5.0
"""The time between two looks."""
LOOKS_KEPT = 5
"""Figures are taken between the oldest and the newest of so many looks."""
SHARE_MIN = 0.25
"""A process that gets a core for less than this share of the time that it wants one starves."""
WANTED_SECONDS_MIN = 5.0
"""A process that wanted a core for less time than this between the looks has too little work to starve."""


class CoreTime(NamedTuple):
    """Seconds since the process began, over all its threads: ``ran`` on a core, ``waited`` for one."""

    ran: float
    waited: float


def core_time(pid: int) -> CoreTime | None:
    """The times of a process now; None where the process has ended or the system does not count."""
    ran = waited = 0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (thread / "schedstat").read_text(encoding="ascii").split()
                ran, waited = ran + int(words[0]), waited + int(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return CoreTime(ran / 1e9, waited / 1e9) if ran else None


def is_idle_class(pid: int) -> bool:
    """Whether the process gets only the time that no other process on its cores wants."""
    try:
        return os.sched_getscheduler(pid) == os.SCHED_IDLE
    except (OSError, AttributeError):
        return False


class StarvationMeter:
    """Looks at one process now and then. ``read`` gives its times and ``idle`` says whether it is of the idle class."""

    def __init__(
        self, read: Callable[[int], CoreTime | None] = core_time, idle: Callable[[int], bool] = is_idle_class
    ) -> None:
        self._read = read
        self._idle = idle
        self._pid: int | None = None
        self._looks: deque[CoreTime] = deque(maxlen=LOOKS_KEPT)

    def look(self, pid: int | None) -> None:
        """Note the times of the process, which may be another one than before, or none."""
        now = self._read(pid) if pid is not None and self._idle(pid) else None
        if pid != self._pid or now is None:
            self._looks.clear()
            self._pid = pid
        if now is not None:
            self._looks.append(now)

    @property
    def share(self) -> float | None:
        """The share of the time in which the process wanted a core and had one; None while it has little work."""
        if len(self._looks) < 2:
            return None
        ran, waited = (max(new - old, 0.0) for new, old in zip(self._looks[-1], self._looks[0], strict=True))
        return ran / (ran + waited) if ran + waited >= WANTED_SECONDS_MIN else None

    @property
    def sentence(self) -> str:
        """What to say of a process that starves now; empty of any other."""
        share = self.share
        if share is None or share >= SHARE_MIN:
            return ""
        return (
            f"the trainer starves: it had a core for {100 * share:.0f} % of the time in which it wanted one; other "
            "programs keep the cores busy, and trainer_priority is idle: start again with --trainer-priority low"
        )
