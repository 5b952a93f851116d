"""The upload limit: a sender waits until the bytes before its own would have gone out at the permitted rate."""

import asyncio
from collections.abc import Awaitable, Callable


class Throttle:
    """At most ``bytes_per_second`` on average, over all callers together (0: no limit).

    ``clock`` gives seconds and ``sleep`` waits them; the running loop's by default.
    """

    def __init__(
        self,
        bytes_per_second: float,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    async def take(self, nbytes: int) -> None:
        """Return once ``nbytes`` may be sent. Callers are served in the order in which they call."""
        if not self._rate:
            return
        now = self._clock() if self._clock else asyncio.get_running_loop().time()
        start = max(self._free_at, now)
        self._free_at = start + nbytes / self._rate
        if start > now:
            await self._sleep(start - now)
