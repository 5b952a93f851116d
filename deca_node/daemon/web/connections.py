"""The connections of an HTTP server: how many there may be, and which one gives way to a newcomer.

A probe must be answered even while strangers open connections and never finish a request on them. So a newcomer is not
turned away where an idle connection can be closed instead: the oldest one of the newcomer's own address where that
address has its full share, else the oldest one of all. A connection is idle while none of its requests is being
answered; those that have never finished a request are closed first. Where no connection is idle, a few more are taken,
and these get answers to probes only.

A connection costs little before its first byte: the parser of requests is made when that byte comes.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol, cast

CONNECTIONS_MAX = 512
"""Connections of all addresses together."""
ADDRESS_SHARE = 0.5
"""One address gets so much of them at most."""
PROBES_MAX = 16
"""Connections beyond the limit, for probes."""
REQUEST_SECONDS = 5.0
"""A new connection is cut after this time without a complete request, even if it keeps sending."""
ANSWER_SECONDS = 120.0
"""A connection is cut this long after its last request, if it has not read the answer or sent another request."""

Parser = asyncio.Protocol
"""What reads requests and writes answers: aiohttp's protocol of one connection."""


class Clock(Protocol):
    """The time in seconds."""

    def __call__(self) -> float: ...


class Connections:
    """All connections of one server. ``parser`` makes the reader of requests of one connection; ``shared`` is for TCP,
    where callers have addresses."""

    def __init__(self, parser: Callable[[], Parser], clock: Clock, *, shared: bool) -> None:
        self.parser = parser
        self.clock = clock
        self._per_address = int(CONNECTIONS_MAX * ADDRESS_SHARE) if shared else CONNECTIONS_MAX
        self._open: dict[asyncio.BaseTransport, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, newcomer: "Connection") -> bool:
        """Take a newcomer; whether there is room for it."""
        same = [each for each in self._open.values() if each.address == newcomer.address]
        crowd = same if len(same) >= self._per_address else list(self._open.values())
        limit = self._per_address if crowd is same else CONNECTIONS_MAX
        if len(crowd) >= limit:
            idle = min((each for each in crowd if each.idle), key=Connection.age_rank, default=None)
            if idle is not None:
                idle.cut()
            elif len(self._open) >= CONNECTIONS_MAX + PROBES_MAX or len(same) >= self._per_address + PROBES_MAX:
                return False
            newcomer.probes_only = idle is None
        self._open[newcomer.transport] = newcomer
        return True

    def forget(self, transport: asyncio.BaseTransport) -> None:
        """A connection has ended."""
        self._open.pop(transport, None)

    def of(self, transport: asyncio.BaseTransport | None) -> "Connection | None":
        """The connection of a request."""
        return self._open.get(transport) if transport is not None else None

    def close(self) -> None:
        """Cut all connections."""
        for each in list(self._open.values()):
            each.cut()

    def cut_the_slow(self) -> None:
        """Cut connections that send a request too slowly or do not read their answer."""
        now = self.clock()
        for each in [each for each in self._open.values() if now > each.end]:
            each.cut()


class Connection(asyncio.Protocol):
    """One connection, from its first moment. It hands everything on to the parser, which it makes at the first byte."""

    transport: asyncio.Transport

    def __init__(self, all_of_them: Connections) -> None:
        self._all = all_of_them
        self._parser: Parser | None = None
        self.address = ""
        self.probes_only = False
        self._since = all_of_them.clock()
        self._answered: float | None = None
        """When the last request was answered; infinity while one is being answered; None before the first."""

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._answered != math.inf

    @property
    def end(self) -> float:
        """The time at which the connection has been too slow."""
        return self._since + REQUEST_SECONDS if self._answered is None else self._answered + ANSWER_SECONDS

    def age_rank(self) -> tuple[bool, float]:
        """The order in which connections give way."""
        return self._answered is not None, self._answered or self._since

    def begin_answer(self) -> None:
        """A complete request has come."""
        self._answered = math.inf

    def end_answer(self) -> None:
        """The request was answered."""
        self._answered = self._all.clock()

    def cut(self) -> None:
        """Close the connection at once."""
        self._all.forget(self.transport)
        self.transport.abort()

    # --- what the event loop calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, and are no instances.
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._all.admit(self):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = self._all.parser()
            self._parser.connection_made(self.transport)
        self._parser.data_received(data)

    def eof_received(self) -> bool | None:
        return self._parser.eof_received() if self._parser else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.forget(self.transport)
        if self._parser:
            self._parser.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._parser:
            self._parser.pause_writing()

    def resume_writing(self) -> None:
        if self._parser:
            self._parser.resume_writing()
