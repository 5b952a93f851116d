"""Ranks on other servers of the same party, as the daemon has them: ``deca-node lend`` there lends a device each.

::

    server -- calls -->  node     Question(nonce)
           <-----------           Lends(device, host, proof)      then the connection waits until a trainer starts
           <-- FollowerSetup --   the server starts the process of a rank
           -- its messages -->    TrainerFailed, RankLost
           -- RankEnded -->       either end closes; the server calls again

One connection is one life of one rank, so whatever ends it has ended that rank. The lender's part is
:mod:`deca_node.daemon.trainer.lending`. The trainer's own data take the connections of torch.distributed.
"""

import asyncio
import contextlib
import hmac
import secrets
import socket
from collections.abc import Callable

from deca_node import __version__
from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.rank import LINE_BYTES_MAX, Rank
from deca_node.protocol.errors import AddressError
from deca_node.protocol.options import AT
from deca_node.storage.jsons import UNFIT

GREETING_SECONDS = 10.0
CALLERS_MAX = 256
KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
"""A server that has vanished is noticed after 35 seconds."""
REMARK_SECONDS, CALL_AGAIN_SECONDS = 60.0, 1.5

Note = Callable[[messages.Remark], None]


class BorrowedRank(Rank):
    """A device of another server, idle until it gets a rank's setup. ``device`` is DEVICE@HOST."""

    def __init__(self, device: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self.device = device
        self._reader, self._writer = reader, writer

    @property
    def pid(self) -> int | None:
        """None: the process is on another server."""
        return None

    @property
    def there(self) -> bool:
        """Whether its server still holds the connection. Only asked before the setup: idle servers say nothing."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def connect(self, setup: object) -> asyncio.StreamReader:
        """See :class:`Rank`."""
        self.send(setup)
        return self._reader

    def send(self, body: object, slots: messages.Slots | None = None) -> None:
        """See :class:`Rank`."""
        if not self._writer.is_closing():
            self._writer.write(messages.encode(body, slots))

    async def end(self) -> None:
        """Close the connection; the server ends the process then."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def kill(self) -> None:
        """See :class:`Rank`."""
        self._writer.close()

    async def code(self) -> int | None:
        """None: only a server that is there tells the code."""
        return None


class Lenders:
    """The other servers. ``count`` ranks are to come from them to this host and port, with this secret."""

    def __init__(self, host: str, port: int, count: int, secret: str) -> None:
        self.host = host
        self._port = port
        self._count = count
        self._secret = secret
        self._server: asyncio.Server | None = None
        self._idle: list[BorrowedRank] = []
        self._came = asyncio.Event()
        self._callers = 0
        self._closing = False

    async def borrow(self, note: Note) -> list[BorrowedRank]:
        """Wait until all ranks are there, and take them. Raises AddressError."""
        await self._open()
        while len(self._present()) < self._count:
            there = len(self._present())
            note(
                messages.Remark(
                    f"waiting at {self._where} for ranks of other servers: {there} of {self._count} are there"
                )
            )
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REMARK_SECONDS):
                    while len(self._present()) == there:
                        await self._came.wait()
                        self._came.clear()
        # Ranks of one server side by side, whoever called first.
        taken = sorted(self._present(), key=lambda rank: rank.device.partition(AT)[::-1])[: self._count]
        self._idle = [rank for rank in self._idle if rank not in taken]
        note(messages.Remark(f"ranks of other servers: {', '.join(rank.device for rank in taken)}"))
        return taken

    async def close(self) -> None:
        """Tell the servers that the node ends."""
        if self._server is None:
            return
        self._closing = True
        for rank in self._idle:
            rank.send(messages.NodeEnds())
        # Those whose rank has just ended call again.
        await asyncio.sleep(CALL_AGAIN_SECONDS)
        for rank in self._idle:
            await rank.end()
        self._server.close()

    @property
    def _where(self) -> str:
        return f"{self.host}:{self._port}"

    def _present(self) -> list[BorrowedRank]:
        self._idle = [rank for rank in self._idle if rank.there]
        return self._idle

    async def _open(self) -> None:
        if self._server is not None:
            return
        try:
            self._server = await asyncio.start_server(self._called, self.host, self._port, limit=LINE_BYTES_MAX)
        except OSError as problem:
            raise AddressError(f"ranks_at = {self._where!r}: {problem.strerror or problem}") from None

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers += 1
        try:
            full = self._callers + len(self._idle) > CALLERS_MAX
            rank = None if full else await self._greeted(reader, writer)
        except (OSError, TimeoutError, *UNFIT):
            rank = None
        finally:
            self._callers -= 1
        if rank is None:
            writer.close()
            return
        if self._closing:
            rank.send(messages.NodeEnds())
        self._idle.append(rank)
        self._came.set()

    async def _greeted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> BorrowedRank | None:
        keep_alive(writer)
        nonce = secrets.token_hex(16)
        writer.write(messages.encode(messages.Question(nonce)))
        async with asyncio.timeout(GREETING_SECONDS):
            said = messages.decode(await reader.readline()).body
        if not isinstance(said, messages.Lends):
            return None
        why = ""
        if not hmac.compare_digest(said.proof, proof_of(self._secret, nonce)):
            why = "the secret is not that of the node (ranks_secret)"
        elif said.version != __version__:
            why = f"the node has version {__version__}, and this server {said.version}"
        if why:
            writer.write(messages.encode(messages.TurnedAway(why)))
            return None
        return BorrowedRank(f"{said.device}{AT}{said.host}", reader, writer)


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Have the system notice that the other end has vanished."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def proof_of(secret: str, nonce: str) -> str:
    """What only somebody who has the secret can answer."""
    return hmac.digest(secret.encode(), nonce.encode(), "sha256").hex()
