"""SIGINT, SIGTERM and SIGHUP from the first moment of a node's process to its last.

::

    starting   a stop ends the start, with exit code 0            SIGHUP is kept for the node
    running    a stop is told to the node                         SIGHUP is told to the node
    ending     a stop changes nothing                             SIGHUP changes nothing
    ended      a stop ends the process with its own exit code     SIGHUP changes nothing

Python's own handlers stay installed all the time, so no signal meets the system's default action, which would kill the
process. asyncio's would leave a gap before the event loop begins and another after it has ended.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)
NOT_STARTED = "stopped before the node had started"


class Stopped(SystemExit):
    """A signal has ended the start of a node. It is a SystemExit because event loops pass these on."""


class Signals:
    """The handlers of this process. ``leave`` ends the process without cleaning up."""

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        self._leave = leave
        self._installed = False
        self._running = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] = lambda: None
        self._reload: Callable[[], None] = lambda: None
        self._stops = 0
        self._reload_asked = False
        self._exit_code: int | None = None

    def install(self) -> None:
        """Begin to handle the signals. Only the main thread can do that."""
        if self._installed:
            return
        self._installed = True
        for number in (*STOPS, signal.SIGHUP):
            signal.signal(number, self._heard)

    def attach(self, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """Call ``stop`` and ``reload`` on the running event loop from now on, also for signals that came before."""
        self.install()
        self._loop, self._stop, self._reload = asyncio.get_running_loop(), stop, reload
        for _ in range(self._stops):
            self._loop.call_soon(stop)
        if self._reload_asked:
            self._loop.call_soon(reload)

    def detach(self) -> None:
        """The node has ended; its exit code is on its way."""
        self._running, self._loop = False, None

    def end(self, exit_code: int) -> None:
        """Only the rest of the process is left."""
        self._running, self._loop, self._exit_code = False, None, exit_code

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self._loop is not None:
            # The loop may be waiting; this wakes it.
            self._loop.call_soon_threadsafe(self._stop if number in STOPS else self._reload)
        elif self._running and number in STOPS:
            self._stops += 1
            raise Stopped(0)
        elif self._running:
            self._reload_asked = True
        elif self._exit_code is not None and number in STOPS:
            self._leave(self._exit_code)


SIGNALS = Signals()
"""Signals belong to the process, so there is one of these."""
