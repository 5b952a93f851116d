"""A stream whose other end says what an input says, and event loops in which a stream's whole life takes a moment."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from deca_node.daemon.wire.broken import StreamBrokenError
from tests.fuzz.decoders import Finding

TURNS_MAX = 60
"""Turns of the event loop that a stream's life may take beyond two for each message."""


class Script:
    """The other end says these messages, one per turn of the loop, and hangs up; it takes whatever is written."""

    def __init__(self, messages: Iterable[bytes | Callable[[], None]]) -> None:
        self._messages = deque(messages)
        self.written: list[bytes] = []

    async def read(self) -> bytes | None:
        """The next message; what can be called is called in passing."""
        await asyncio.sleep(0)
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, bytes):
                return message
            message()
        return None

    async def write(self, message: bytes) -> None:
        """Keep what is said."""
        self.written.append(message)

    def verify(self, name: str) -> None:
        """Everybody is who they say."""

    def __len__(self) -> int:
        return len(self._messages)


class NoEndpoint:
    """A door that nobody answers at."""

    secure = False

    def add_streams(self, service: str, methods: Any) -> None:
        """Nothing is served: what answers is called by hand."""

    @asynccontextmanager
    async def dial(self, *_: object) -> Any:
        """Nobody is there."""
        raise StreamBrokenError("nobody answers")
        yield


async def live(work: Awaitable[Any], script: Script, end: Callable[[], None] = lambda: None) -> Any:
    """Await ``work``, which lives on ``script``; one that waits for something else when all is said is told to ``end``.

    Raises Finding where it goes on all the same.
    """
    task = asyncio.ensure_future(work)
    for _ in range(2 * len(script) + TURNS_MAX):
        if task.done():
            return task.result()
        await asyncio.sleep(0)
    end()
    for _ in range(TURNS_MAX):
        if task.done():
            return task.result()
        await asyncio.sleep(0)
    task.cancel()
    raise Finding("the stream's life does not end")


_LOOP: list[asyncio.AbstractEventLoop] = []


def in_loop(work: Awaitable[Any]) -> Any:
    """Run to the end, in one loop for all inputs: making one takes longer than most of them. What a background task
    raises, and nobody asked for, is raised here."""
    if not _LOOP:
        _LOOP.append(asyncio.new_event_loop())
    loop, lost = _LOOP[0], list[BaseException]()
    loop.set_exception_handler(lambda _, context: lost.append(context.get("exception") or Finding(context["message"])))
    value = loop.run_until_complete(work)
    if lost:
        raise lost[0]
    return value
