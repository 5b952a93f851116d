"""Who gets a core first: the network's threads, which a peer waits for, before the trainer, which nobody does.

A trainer takes every core it is given, and never sleeps. Beside a nice one a thread of the network that was woken
still waits up to milliseconds for its core, beside one of the idle class hardly ever (docs/LOG.md). The network's
threads also wait for each other, so their own slices are short. Neither needs a privilege.

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
"""The shortest that Linux grants (since 6.12; earlier ones leave it as it is)."""

# Python has no function for this system call, nor has glibc before 2.41; the number depends on the machine.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def give_way(pid: int, priority: str) -> None:
    """Let a process that has just been started stand back behind this one, as far as ``priority`` says: ``idle`` (it
    runs when nobody else on its cores wants to), ``low`` (nicer by 5) or ``normal``. Threads it starts later do the
    same. Where the system knows no idle class, it is as nice as can be; what the system refuses stays as it was."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    niceness = min(own + {"idle": NICENESS_MAX, "low": NICENESS_LOW, "normal": 0}[priority], NICENESS_MAX)
    if sys.platform == "linux":
        if _ordinary():
            # A slice is inherited, and outlives the change to the idle class: the system's own comes back before it.
            _set_slice(pid, niceness, 0)
        if priority == "idle":
            with contextlib.suppress(OSError):
                os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)


def answer_promptly() -> bool:
    """Have this thread, and all that it starts from now on, wait for a core less long and keep it less long at a time;
    whether the system could do that. To be called before there are other threads."""
    if sys.platform != "linux" or not _ordinary():
        return False
    return _set_slice(0, os.getpriority(os.PRIO_PROCESS, 0), SLICE_NANOSECONDS)


def _ordinary() -> bool:
    """Whether nobody has chosen another class for this node, which then stays as it is, its trainer's too."""
    return os.sched_getscheduler(0) == os.SCHED_OTHER


def _set_slice(pid: int, niceness: int, nanoseconds: int) -> bool:
    """How long an ordinary process keeps a core that others want (0: as the system has it); whether that was done."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, niceness, 0, nanoseconds, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, pid, ctypes.c_char_p(attributes), 0) == 0)
