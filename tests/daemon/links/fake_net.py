"""Endpoints without sockets, and an event loop that never waits. A seed decides the order of all that happens.

Messages of one direction keep their order and arrive after a random delay. A stream may break for both ends at once, or
for one end only, as when a link dies silently. The clock advances only when nothing else can happen, so a test of
minutes takes milliseconds.
"""

import asyncio
import random
import selectors
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Answer

_BROKEN = object()


class _Selector(selectors.SelectSelector):
    """Advances the clock instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "every task waits for ever"
        self.now += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run on a loop whose clock starts at 0 and advances without waiting."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


class FakeNet:
    """Endpoints by address. ``delay`` is the shortest and the longest time that a message takes, in seconds."""

    def __init__(self, seed: int, delay: tuple[float, float] = (0.0, 0.05)) -> None:
        self.rng = random.Random(seed)
        self.answers: dict[tuple[str, str], Answer] = {}
        self.streams: list[FakeStream] = []
        self._delay = delay

    def delay(self) -> float:
        return self.rng.uniform(*self._delay)


class FakeEnd:
    """One end of a stream. Both ends hold the same ``stream``."""

    def __init__(self, stream: "FakeStream") -> None:
        self.stream = stream
        self.other: FakeEnd
        self._on_its_way: deque[Any] = deque()
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._last_at = 0.0
        self._over: Any = ...

    async def read(self) -> bytes | None:
        if self._over is ...:
            message = await self._inbox.get()
            if isinstance(message, bytes):
                return message
            self._over = message
        if self._over is _BROKEN:
            raise StreamBrokenError("broken")
        return None

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(0)
        if self._over is not ...:
            raise StreamBrokenError("broken")
        self.other.deliver(message)

    async def end(self) -> None:
        """The caller's end waits until the answer has ended; its own end arrives after all that it wrote."""
        if self is self.stream.near:
            self.other.deliver(None)
            assert self.stream.answering is not None
            await asyncio.wait({self.stream.answering})

    def verify(self, name: str) -> None:
        pass

    def deliver(self, message: Any) -> None:
        """Deliver a message after a delay, and after every message that was sent before it."""
        loop = asyncio.get_running_loop()
        self._last_at = max(self._last_at, loop.time() + self.stream.net.delay())
        self._on_its_way.append(message)
        # Timers that end at the same moment run in any order.
        loop.call_at(self._last_at, lambda: self._inbox.put_nowait(self._on_its_way.popleft()))

    def break_now(self) -> None:
        self._inbox.put_nowait(_BROKEN)


class FakeStream:
    """An open stream: its two ends, and the task that answers."""

    def __init__(self, net: FakeNet, dialler: str, called: str) -> None:
        self.net = net
        self.dialler, self.called = dialler, called
        self.near, self.far = FakeEnd(self), FakeEnd(self)
        self.near.other, self.far.other = self.far, self.near
        self.answering: asyncio.Task[None] | None = None

    def begin(self, answer: Answer) -> None:
        self.answering = asyncio.ensure_future(self._answered(answer))

    async def _answered(self, answer: Answer) -> None:
        await asyncio.sleep(self.net.delay())
        await answer(self.far)
        self.near.deliver(None)

    def hang_up(self) -> None:
        """The caller closes its end: after a delay the answering call is cancelled, as gRPC does."""
        if self.answering:
            asyncio.get_running_loop().call_later(self.net.delay(), self.answering.cancel)


class FakeEndpoint:
    """Stands in for an Endpoint. ``dialled`` holds the names under which peers were called."""

    def __init__(self, net: FakeNet, address: str, *, secure: bool = False) -> None:
        self.secure = secure
        self.dialled: list[str] = []
        self._net = net
        self._address = address

    def add_streams(self, service: str, methods: Mapping[str, Answer], calls_max: int = 0) -> None:
        for method, answer in methods.items():
            self._net.answers[self._address, f"/{service}/{method}"] = answer

    @asynccontextmanager
    async def dial(self, name: str, address: object, method: str) -> AsyncIterator[FakeEnd]:
        self.dialled.append(name)
        await asyncio.sleep(self._net.delay())
        answer = self._net.answers.get((str(address), method))
        stream = FakeStream(self._net, self._address, str(address))
        self._net.streams.append(stream)
        if answer:
            stream.begin(answer)
        else:
            stream.near.break_now()
        try:
            yield stream.near
        finally:
            stream.hang_up()


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Let time pass until a condition holds; raise TimeoutError when it does not within ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
