"""Large pieces of work take turns: one in each iteration of the event loop, so that small tasks never wait for
several."""

import asyncio
from collections import deque

LARGE_BYTES = 64 << 10
"""Hashing and copying this many bytes counts as a large piece of work."""


class Turns:
    """The turns of one event loop, for every task on it that moves megabytes. It takes about half a millisecond to hash
    and copy a chunk, and as long again to hand it to gRPC. With eight neighbours a ping would wait for all of that."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running = False

    async def take(self) -> None:
        """Return when it is the caller's turn. Callers are served in the order in which they call."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._running:
            self._running = True
            loop.call_soon(self._next, loop)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        # Tasks that were cancelled meanwhile no longer wait.
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        if self._waiting:
            self._waiting.popleft().set_result(None)
            loop.call_soon(self._next, loop)
        else:
            self._running = False
