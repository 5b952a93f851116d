"""Large pieces of work take turns: one in each turn of the event loop, so that what is small never waits for many."""

import asyncio
from collections import deque

LARGE_BYTES = 64 << 10
"""From this size on, bytes that are hashed and copied are a large piece of work."""


class Turns:
    """Shared by all that move megabytes on one loop. To hash and copy a chunk takes about half a millisecond, to hand
    it to gRPC as long again; with eight neighbours that would add up before a ping is looked at."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running = False

    async def take(self) -> None:
        """Return when it is the caller's turn. Who came first goes first."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._running:
            self._running = True
            loop.call_soon(self._next, loop)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        # Who was cancelled meanwhile waits no more.
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        if self._waiting:
            self._waiting.popleft().set_result(None)
            loop.call_soon(self._next, loop)
        else:
            self._running = False
