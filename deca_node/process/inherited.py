"""Sets right what a process inherits from its parent. docs/OPERATIONS.md lists all of it, under "What a node inherits".

Each function mends one thing and tolerates a system that refuses. All run before anything else opens a file or
prints.
"""

import codecs
import contextlib
import io
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from deca_node.process.search_path import leave_out_working_directory

OPEN_FILES = 65_536
"""The limit of open files that a process takes, if it may: a node has a descriptor per connection."""
OTHERS_MAY_WRITE, OWNER = 0o002, 0o700
ESCAPE = "deca-escape"
SYMBOLS = {"→": "->", "▲": "^", "▼": "v", "\N{REPLACEMENT CHARACTER}": "?"}
"""Symbols for people, and what stands for them on a terminal that lacks them."""
STREAMS = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def set_right() -> None:
    """Mend everything that a process can mend by itself."""
    open_standard_descriptors()
    lose_errors_rather_than_fail()
    encode_every_text()
    keep_others_from_writing()
    raise_the_limit_of_open_files()
    leave_out_working_directory()
    receive_signals()


def has_working_directory() -> bool:
    """Whether the working directory exists. It may have been deleted; then relative paths name nothing."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def open_standard_descriptors() -> None:
    """Open /dev/null in place of standard streams that are closed.

    Otherwise the next file or socket gets the descriptor 0, 1 or 2, and libraries that print or fork would write into
    it, or abort.
    """
    for number, (name, mode) in STREAMS.items():
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def lose_errors_rather_than_fail() -> None:
    """Let standard error lose what cannot be written, as on a full disk or to a reader that has gone."""
    old = sys.stderr
    if isinstance(old, io.TextIOWrapper):
        raw = io.BufferedWriter(_Lossy(old.fileno()))
        sys.stderr = io.TextIOWrapper(raw, old.encoding, old.errors, line_buffering=True)


class _Lossy(io.RawIOBase):
    """A descriptor to which every write succeeds."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError:
            return len(data)


def encode_every_text() -> None:
    r"""Print characters that the terminal's encoding lacks in another way instead of failing: as ``->`` for an arrow,
    else as ``\uXXXX``, which is right in JSON, too."""
    codecs.register_error(ESCAPE, escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def keep_others_from_writing() -> None:
    """Make sure that this user can use the files it makes, and that no other user outside its group can write them."""
    os.umask((os.umask(0o077) | OTHERS_MAY_WRITE) & ~OWNER)


def raise_the_limit_of_open_files() -> None:
    """Raise the soft limit of open files as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def receive_signals() -> None:
    """Let the signals through that a node acts on, and let it wait for its child. A parent may have blocked either."""
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def escaped(problem: UnicodeError) -> tuple[str, int]:
    """The handler of :func:`encode_every_text` for characters that cannot be encoded."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    text = problem.object[problem.start : problem.end]
    return "".join(SYMBOLS.get(letter) or _as_json(letter) for letter in text), problem.end


def _as_json(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
