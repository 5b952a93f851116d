"""Networks that can be parted in two and healed again, with a node's unchanged process at every end.

Namespaces are the real thing: machines of their own as far as TCP can tell, and packets that are lost between them.
They take root. A switchboard does without: every node dials through a proxy of its own, which holds back whatever
would cross the line; to the nodes that looks the same but for the packets that TCP sends again.
"""

import asyncio
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pytest

from bench.links.wire import Line, NotPermittedError, Wire
from deca_node.lab.rigs.processes import LOOPBACK, NodeProcess, free_ports
from tests.e2e.testbed import Testbed, proxied

PORT = 7001


class Network(Protocol):
    """Where nodes run. To be used in a ``with`` statement."""

    def start(self, name: str, **flags: Any) -> NodeProcess:
        """Start one of the nodes."""

    def part(self, names: Iterable[str]) -> None:
        """From now on nothing passes between these and the others."""

    def heal(self) -> None:
        """Everything passes again."""


@dataclass
class PartedWire(Wire):
    """A wire that loses what would pass between ``side`` and the other namespaces."""

    side: set[str] = field(default_factory=set)

    def _arrival(self, source: Line, to: Line, nbytes: int, now: float) -> float | None:
        if (source.namespace in self.side) != (to.namespace in self.side):
            return None
        return super()._arrival(source, to, nbytes, now)


class Namespaces:
    """One namespace per node, 1 ms apart."""

    def __init__(self, testbed: Testbed, names: Sequence[str]) -> None:
        self._testbed = testbed
        self._names = names
        self._wire = PartedWire(len(names), bits_per_second=1e9, seconds_one_way=0.0005)

    def __enter__(self) -> "Namespaces":
        try:
            self._wire.__enter__()
        except NotPermittedError as problem:
            pytest.skip(str(problem))
        self._lines = dict(zip(self._names, self._wire.lines, strict=True))
        peers = (f"{name}@{line.address}:{PORT}\n" for name, line in self._lines.items())
        (self._testbed.folder / "peers.txt").write_text("".join(peers))
        return self

    def __exit__(self, *problem: object) -> None:
        self._wire.__exit__(None, None, None)

    def start(self, name: str, **flags: Any) -> NodeProcess:
        within = self.within(name)
        return self._testbed.start(name, {"DECA_INSECURE": "2"}, within=within, insecure=None, **flags)

    def within(self, name: str) -> tuple[str, ...]:
        """The command that runs another in a node's namespace."""
        return ("ip", "netns", "exec", self._lines[name].namespace)

    def address(self, name: str) -> str:
        """A node's address, without a port."""
        return self._lines[name].address

    def part(self, names: Iterable[str]) -> None:
        self._wire.side = {self._lines[name].namespace for name in names}

    def heal(self) -> None:
        self._wire.side = set()


class Switchboard:
    """One proxy per node on loopback, for the connections that this node dials (HTTP CONNECT, as gRPC asks for it).

    ``late`` names nodes that are not in the peers file.
    """

    def __init__(self, testbed: Testbed, names: Sequence[str], late: Sequence[str] = ()) -> None:
        self._testbed = testbed
        self._ports = dict(zip((*names, *late), free_ports(len(names) + len(late)), strict=True))
        lines = (f"{name}@{self.address(name)}\n" for name in names)
        (testbed.folder / "peers.txt").write_text("".join(lines))
        self._names = {port: name for name, port in self._ports.items()}
        self._side: frozenset[str] = frozenset()
        self._proxies: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "Switchboard":
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *problem: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    def address(self, name: str) -> str:
        """Where a node listens."""
        return f"{LOOPBACK}:{self._ports[name]}"

    def environment(self, name: str) -> dict[str, str]:
        """What makes a node dial through its proxy."""
        return proxied(self._proxies[name])

    def start(self, name: str, **flags: Any) -> NodeProcess:
        return self._testbed.start(name, self.environment(name), **flags)

    def part(self, names: Iterable[str]) -> None:
        self._loop.call_soon_threadsafe(self._set_side, frozenset(names))

    def heal(self) -> None:
        self.part(())

    # --- in the thread ------------------------------------------------------------------------------

    def _set_side(self, names: frozenset[str]) -> None:
        self._side = names
        self._changed.set()
        self._changed.clear()

    async def _serve(self) -> None:
        self._ended, self._changed = asyncio.Event(), asyncio.Event()
        servers = [await asyncio.start_server(partial(self._answer, name), LOOPBACK, 0) for name in self._ports]
        ports = (server.sockets[0].getsockname()[1] for server in servers)
        self._proxies = dict(zip(self._ports, ports, strict=True))
        self._listening.set()
        await self._ended.wait()
        for server in servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _answer(self, caller: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with ExitStack() as stack:
            stack.callback(writer.transport.abort)
            try:
                request = await reader.readuntil(b"\r\n\r\n")
                port = int(request.split()[1].rpartition(b":")[2])
                pair = (caller, self._names.get(port, caller))
                await self._passable(pair)
                far_reader, far_writer = await asyncio.open_connection(LOOPBACK, port)
                stack.callback(far_writer.transport.abort)
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                there, back = self._pump(pair, reader, far_writer), self._pump(pair, far_reader, writer)
                await asyncio.gather(there, back)
            except (OSError, EOFError):
                # Either end is gone, or nobody listens there: the other end sees its connection break.
                pass

    async def _pump(self, pair: tuple[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._passable(pair)
            writer.write(data)
            await writer.drain()
        await self._passable(pair)
        raise EOFError

    async def _passable(self, pair: tuple[str, str]) -> None:
        """Wait until both are on one side."""
        while (pair[0] in self._side) != (pair[1] in self._side):
            await self._changed.wait()
