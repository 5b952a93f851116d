"""What ``deca-node lend`` does on another server of a party: it lends its devices to the node.

Each device has a connection to the node, and waits there for the setup of a rank. Then the process of that rank runs,
exactly as on the node's own server, until it ends or the node closes the connection. Then the device is lent anew.
"""

import asyncio
import contextlib
import dataclasses
import platform
from collections.abc import Callable

from deca_node import __version__
from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.borrowed import GREETING_SECONDS, keep_alive, proof_of
from deca_node.daemon.trainer.rank import LINE_BYTES_MAX, RankProcess
from deca_node.protocol.errors import NoAnswerError, SettingsError
from deca_node.protocol.options import devices_of
from deca_node.storage.jsons import UNFIT

RETRY_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Lending:
    """What is lent to the node at ``host``, and how. ``model`` is where this server has the start model (empty: at the
    node's own path), and ``threads`` are the CPU threads of all ranks here. ``patience_seconds`` is the longest search
    for the node, and ``name`` this server's."""

    host: str
    port: int
    devices: tuple[str, ...]
    secret: str
    model: str
    threads: int
    patience_seconds: float = 3600.0
    priority: str = "low"
    name: str = dataclasses.field(default_factory=lambda: platform.node() or "server")

    @property
    def node(self) -> str:
        """Where the node is."""
        return f"{self.host}:{self.port}"


def counted(text: str) -> tuple[str, ...]:
    """The devices that a setting names one by one or by their number, each once. Raises SettingsError."""
    wanted = devices_of(text)
    if wanted.cards:
        return tuple(f"cuda:{card}" for card in wanted.cards)
    if wanted.kind not in {"cpu", "cuda"} or not (wanted.count or wanted.kind == "cpu"):
        raise SettingsError(f"devices = {text!r} does not say how many are lent; write cuda*N, cuda:N,cuda:M or cpu*N")
    count = max(wanted.count, 1)
    return ("cpu",) * count if wanted.kind == "cpu" else tuple(f"cuda:{card}" for card in range(count))


async def lend(lending: Lending, say: Callable[[str], None]) -> None:
    """Lend all devices until the node ends. Raises NoAnswerError if it cannot be found, and SettingsError if it takes
    no rank of this server."""
    say(f"lending {', '.join(lending.devices)} to the node at {lending.node}")
    # One voice for all of them: they fare alike.
    ranks = enumerate(lending.devices)
    await asyncio.gather(*(_lend_one(lending, device, _silent if number else say) for number, device in ranks))


def _silent(_: str) -> None:
    pass


async def _lend_one(lending: Lending, device: str, say: Callable[[str], None]) -> None:
    while True:
        reader, writer = await _call(lending, say)
        try:
            setup = await _asked(lending, device, reader, writer)
            if setup is None:
                say("the node has ended")
                return
            say(f"a trainer starts; rank {setup.rank} is on {device}")
            await _run(lending, setup, reader, writer)
            say("the trainer has ended; waiting for the next one")
        except (OSError, EOFError, TimeoutError, *UNFIT):
            say(f"the connection to the node at {lending.node} has ended; calling again")
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            writer.close()


async def _call(lending: Lending, say: Callable[[str], None]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Call until the node answers."""
    clock = asyncio.get_running_loop().time
    began, said = clock(), False
    while True:
        try:
            reader, writer = await asyncio.open_connection(lending.host, lending.port, limit=LINE_BYTES_MAX)
        except OSError as problem:
            why = problem.strerror or str(problem)
            if clock() - began > lending.patience_seconds:
                raise NoAnswerError(f"no node waits for ranks at {lending.node}: {why}") from None
            if not said:
                say(f"waiting for the node at {lending.node}: {why}")
            said = True
            await asyncio.sleep(RETRY_SECONDS)
        else:
            keep_alive(writer)
            return reader, writer


async def _asked(
    lending: Lending, device: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> messages.FollowerSetup | None:
    """Offer a device; returns the setup of its next rank, or None if the node ends. Raises SettingsError."""
    async with asyncio.timeout(GREETING_SECONDS):
        question = await _heard(reader)
    proof = proof_of(lending.secret, question.nonce) if isinstance(question, messages.Question) else ""
    writer.write(messages.encode(messages.Lends(device, lending.name, __version__, proof)))
    body = await _heard(reader)
    match body:
        case messages.NodeEnds():
            return None
        case messages.TurnedAway(sentence):
            raise SettingsError(f"the node at {lending.node} does not take this server's ranks: {sentence}")
        case messages.FollowerSetup():
            model = lending.model or body.options.model
            options = dataclasses.replace(body.options, threads=lending.threads, model=model)
            return dataclasses.replace(body, options=options)
    raise ValueError(f"the node at {lending.node} says {type(body).__name__}")


async def _heard(reader: asyncio.StreamReader) -> object:
    line = await reader.readline()
    if not line:
        raise EOFError
    return messages.decode(line).body


async def _run(
    lending: Lending, setup: messages.FollowerSetup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Run one rank until it ends or the node closes the connection."""
    rank = RankProcess.start(lending.priority)
    try:
        passing = asyncio.ensure_future(_pass_on(rank, await rank.connect(setup), writer))
        closed = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({passing, closed}, return_when=asyncio.FIRST_COMPLETED)
        for task in (passing, closed):
            task.cancel()
        await asyncio.gather(passing, closed, return_exceptions=True)
    finally:
        await rank.end()


async def _pass_on(rank: RankProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what the rank says, and how it ends."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(line)
    writer.write(messages.encode(messages.RankEnded(await rank.code() or 0)))
    await writer.drain()
