"""A disk that fails at a chosen call, or a process that is killed at one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WRITING = ("open", "write", "fsync", "replace", "mkdir")
DELETING = ("unlink", "rmdir")


class KilledError(BaseException):
    """Raised in place of a call that a killed process no longer makes. No code catches it."""


class Disk:
    """Counts the calls that change the disk, and makes call number ``bad`` fail (from 0), as on a full disk.

    All later calls fail too, unless ``only_once``.
    """

    calls: tuple[str, ...] = WRITING

    def __init__(self, bad: int, only_once: bool) -> None:
        self._left = bad
        self._only_once = only_once

    @property
    def failed(self) -> bool:
        """Whether the call was reached."""
        return self._left < 0

    @contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            for name in self.calls:
                patch.setattr(os, name, self._counted(getattr(os, name)))
            yield

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == -1 or (self._left < 0 and not self._only_once):
                raise self._failure()
            return call(*args, **kwargs)

        return counted

    def _failure(self) -> BaseException:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Kill(Disk):
    """A process that is killed just before call number ``bad``: from then on nothing on the disk changes."""

    calls = WRITING + DELETING

    def __init__(self, bad: int) -> None:
        super().__init__(bad, only_once=False)

    def _failure(self) -> BaseException:
        return KilledError
