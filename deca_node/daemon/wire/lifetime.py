"""The loops of one live stream: they run side by side, and all end when one of them ends."""

import asyncio
from collections.abc import Coroutine

from deca_node.daemon.wire.broken import StreamBrokenError


class Lifetime:
    """From the moment at which a stream is taken to its end."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._why: str | None = None

    async def run(self, *loops: Coroutine[None, None, None]) -> str:
        """Run the loops until one of them ends or :meth:`end` is called; returns why the stream ended, as a sentence.
        Raises what a loop raised, but not StreamBrokenError."""
        if self._why is not None:
            for loop in loops:
                loop.close()
            return self._why
        try:
            self._tasks = [asyncio.ensure_future(loop) for loop in loops]
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            return self._outcome()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def end(self, why: str) -> None:
        """End the stream now. Of several reasons the first counts."""
        self._why = self._why or why
        for task in self._tasks:
            task.cancel()

    def _outcome(self) -> str:
        if self._why is not None:
            return self._why
        problems = [task.exception() for task in self._tasks if task.done() and not task.cancelled()]
        # A broken rule says more than that the stream broke after it.
        for problem in sorted(filter(None, problems), key=lambda problem: isinstance(problem, StreamBrokenError)):
            if isinstance(problem, StreamBrokenError):
                return str(problem)
            raise problem
        return "the peer closed its stream"
