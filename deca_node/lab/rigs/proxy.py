"""A TCP proxy on loopback that makes a link bad: slow to read, or cut after any number of bytes."""

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from deca_node.lab.rigs.processes import LOOPBACK


@dataclass(frozen=True)
class Faults:
    """``bytes_per_second`` limits what the target is given to read (0: no limit). ``cuts`` connections are cut, each
    after a random number of bytes up to ``cut_bytes_max``, counted in both directions together."""

    bytes_per_second: int = 0
    cuts: int = 0
    cut_bytes_max: int = 0
    seed: int = 0


class Proxy:
    """Forwards ``port`` to ``target`` in its own thread until the ``with`` block ends."""

    def __init__(self, target: int, faults: Faults) -> None:
        self.port = 0
        self.cuts = 0
        self._target = target
        self._faults = faults
        self._rng = random.Random(faults.seed)
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *problem: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        stopped = asyncio.Event()
        self._stop = stopped.set
        server = await asyncio.start_server(self._forward, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await stopped.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            writer.close()
            return
        budget = [self._budget()]
        there = self._pump(reader, far_writer, budget, self._faults.bytes_per_second)
        back = self._pump(far_reader, writer, budget, 0)
        try:
            await asyncio.gather(there, back)
        except OSError:
            pass
        finally:
            for each in (writer, far_writer):
                each.transport.abort()

    def _budget(self) -> int | None:
        """The number of bytes that this connection may carry, or None for any number."""
        if self.cuts >= self._faults.cuts:
            return None
        return self._rng.randint(1, self._faults.cut_bytes_max)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int | None], rate: int
    ) -> None:
        while data := await reader.read(min(rate, 65_536) // 4 or 65_536):
            left = budget[0]
            if left is not None and len(data) >= left:
                writer.write(data[:left])
                budget[0] = None
                self.cuts += 1
                raise ConnectionAbortedError
            budget[0] = None if left is None else left - len(data)
            writer.write(data)
            await writer.drain()
            if rate:
                await asyncio.sleep(len(data) / rate)
        writer.close()
