"""Who gets a core first: the network's threads, because peers wait for them, and then the trainer.

A trainer takes every core that it is given and never sleeps. If it is only nice, a woken thread of the network still
waits for its core for up to milliseconds; if it is in the idle class, hardly ever (docs/LOG.md). The network's threads
also wait for each other, so their time slices are short. Neither change needs a privilege.

Sources: sched(7), sched_setattr(2); for what a slice means, the kernel's documentation of its EEVDF scheduler.
"""

import contextlib
import ctypes
import os
import platform
import struct
import sys

NICENESS_LOW, NICENESS_MAX = 5, 19
SLICE_NANOSECONDS = 100_000
"""The shortest slice that Linux grants (since 6.12; earlier versions ignore it)."""

# Python has no function for this system call, nor has glibc before 2.41; the number depends on the machine.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def give_way(pid: int, priority: str) -> None:
    """Set the priority of a process that this one has just started, and of its later threads.

    ``idle``: it runs when no other process on its cores wants to; ``low``: it is nicer by 5; ``normal``: as this one.
    A system without an idle class gets the highest niceness instead. Changes that the system refuses are left out.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    niceness = min(own + {"idle": NICENESS_MAX, "low": NICENESS_LOW, "normal": 0}[priority], NICENESS_MAX)
    if sys.platform == "linux":
        if _ordinary():
            # A child inherits the short slice, and keeps it in the idle class: restore the system's slice first.
            _set_slice(pid, niceness, 0)
        if priority == "idle":
            with contextlib.suppress(OSError):
                os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)


def answer_promptly() -> bool:
    """Give this thread, and all that it starts later, short time slices: they get a core sooner and keep it for less
    time. Returns whether the system could do that. Call it before there are other threads."""
    if sys.platform != "linux" or not _ordinary():
        return False
    return _set_slice(0, os.getpriority(os.PRIO_PROCESS, 0), SLICE_NANOSECONDS)


def _ordinary() -> bool:
    """Whether this node runs in the default class. If its owner chose another, the trainer keeps that class too."""
    return os.sched_getscheduler(0) == os.SCHED_OTHER


def _set_slice(pid: int, niceness: int, nanoseconds: int) -> bool:
    """Set how long an ordinary process keeps a core that others want (0: the system's default); returns success."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, niceness, 0, nanoseconds, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, pid, ctypes.c_char_p(attributes), 0) == 0)
