"""The greeting: how two nodes begin a stream, the same for exchange streams and for control streams.

::

    caller                              callee
      | -- Hello --------------------->  |   checks it
      |  <--------------------- Hello -- |   or a Refusal, and the end of the stream
      |   checks it                      |
      | < - - - - - - Taken - - - - - >  |   from the end that leads (pairing)

A :class:`Greeter` runs this sequence for one service. The service says how its messages are written and read
(:class:`Messages`), what its own Hello holds, and which peers are welcome.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.pairing import Pair, StreamNumber
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol.agreed.identity import RunIdentity
from deca_node.protocol.errors import WireError


@dataclass
class Identity:
    """What this node says of itself in every Hello. ``address`` is where other nodes reach it, as HOST:PORT. ``run`` is
    what it knows of its run from the start; None says nothing of it."""

    name: str
    boot: int
    position: Callable[[], int]
    address: str = ""
    run: RunIdentity | None = None


class RefusedError(Exception):
    """The peer refuses this stream. ``reason`` is the refusal's code, the message its sentence. ``name`` is the peer's,
    as it says; empty from an earlier version."""

    def __init__(self, refusal: pb.Refusal) -> None:
        super().__init__(sentence_of(refusal))
        self.reason = refusal.reason
        self.name = refusal.name


def sentence_of(refusal: pb.Refusal, length_max: int = 1000) -> str:
    """The sentence of a refusal, cut to a length that fits into a log line."""
    return refusal.sentence[:length_max] or "it gave no reason"


def check_addressee(own: str, protocol: int, version: int, to: str) -> None:
    """Check that a Hello is of this version and meant for this node. Raises WireError("version" or "address")."""
    if protocol != version:
        raise WireError("version", f"protocol {protocol}, this node speaks {version}")
    if to != own:
        raise WireError("address", f"the Hello is meant for {to[:200]!r}, but this is {own!r}")


@dataclass(frozen=True)
class Messages:
    """The messages of one service: ``kind`` is the class of all of them, ``hello`` the name of the body that greets.

    ``decode`` reads one message from bytes, and raises WireError where it is malformed. Each kind has the bodies
    ``refusal`` and ``taken``, of the types in exchange.proto.
    """

    kind: Any
    hello: str
    decode: Callable[[bytes], Any]

    def read(self, message: bytes | None, body: str) -> Any:
        """A message of the greeting, which must have this body. Raises RefusedError for a Refusal, and WireError for
        any other message."""
        if message is None:
            raise StreamBrokenError("the other end closed its stream")
        frame = self.decode(message)
        found = frame.WhichOneof("body")
        if found == "refusal":
            raise RefusedError(frame.refusal)
        if found != body:
            raise WireError("unexpected", f"a {found} instead of a {body}")
        return frame

    def refusal(self, problem: WireError, own: str) -> bytes:
        """A Refusal, as bytes."""
        said = pb.Refusal(reason=problem.reason, sentence=str(problem), name=own)
        message: bytes = self.kind(refusal=said).SerializeToString()
        return message


class Hello(Protocol):
    """The fields that the Hello of every service has."""

    @property
    def name(self) -> str: ...

    @property
    def boot(self) -> int: ...

    @property
    def ended(self) -> pb.Ended: ...


class Link(Protocol):
    """A service's record of one peer, as far as the greeting knows it."""

    @property
    def pair(self) -> Pair: ...


SomeHello = TypeVar("SomeHello", bound=Hello)
SomeLink = TypeVar("SomeLink", bound=Link)


@dataclass(frozen=True)
class Greeted(Generic[SomeHello, SomeLink]):
    """A stream that both ends keep. ``taken`` is the message that this node sends first; None where the peer does."""

    link: SomeLink
    hello: SomeHello
    stream: Stream
    number: StreamNumber
    taken: Any


class Greeter(Generic[SomeHello, SomeLink]):
    """Greets peers for one service, and refuses those that are not welcome.

    ``admit(greetings)`` raises WireError("busy") where no further caller is greeted; ``hello(link)`` is this node's
    Hello to a peer, as bytes. ``welcome(hello, stream, called)`` checks the Hello of a caller (``called`` is None) or
    of the peer that was called, and returns its link or raises WireError. ``over(link)`` is called when a caller's
    greeting has ended, whatever its outcome. A greeting takes at most ``seconds``. ``book`` counts refusals.
    """

    def __init__(
        self,
        messages: Messages,
        own: str,
        seconds: float,
        book: Refusals,
        admit: Callable[[int], None],
        hello: Callable[[SomeLink], bytes],
        welcome: Callable[[SomeHello, Stream, SomeLink | None], SomeLink],
        over: Callable[[SomeLink], None] = lambda _link: None,
    ) -> None:
        self._messages = messages
        self._own = own
        self._seconds = seconds
        self._book = book
        self._admit = admit
        self._hello = hello
        self._welcome = welcome
        self._over = over
        self._greetings = 0

    async def call(self, link: SomeLink, stream: Stream) -> Greeted[SomeHello, SomeLink]:
        """Greet a peer that was dialled. Raises TimeoutError, StreamBrokenError, RefusedError where the peer refuses,
        and WireError where this node does, after the peer was told."""
        try:
            async with asyncio.timeout(self._seconds):
                await stream.write(self._hello(link))
                hello = self._hello_in(await stream.read())
                return await self._agreed(self._welcome(hello, stream, link), hello, stream)
        except WireError as problem:
            await self.refuse(stream, problem)
            raise

    async def answer(self, stream: Stream) -> Greeted[SomeHello, SomeLink] | None:
        """Greet a caller. None where there is no session: the caller has been told why, or is gone."""
        try:
            return await self._greet_caller(stream)
        except (StreamBrokenError, RefusedError):
            return None
        except TimeoutError:
            await self.refuse(stream, WireError("slow", f"the greeting did not end within {self._seconds:g} s"))
        except WireError as problem:
            await self.refuse(stream, problem)
        return None

    async def _greet_caller(self, stream: Stream) -> Greeted[SomeHello, SomeLink]:
        self._admit(self._greetings)
        self._greetings += 1
        try:
            async with asyncio.timeout(self._seconds):
                hello = self._hello_in(await stream.read())
                link = self._welcome(hello, stream, None)
                try:
                    await stream.write(self._hello(link))
                    return await self._agreed(link, hello, stream)
                finally:
                    self._over(link)
        finally:
            self._greetings -= 1

    def _hello_in(self, message: bytes | None) -> SomeHello:
        body = self._messages.hello
        hello: SomeHello = getattr(self._messages.read(message, body), body)
        return hello

    async def _agreed(self, link: SomeLink, hello: SomeHello, stream: Stream) -> Greeted[SomeHello, SomeLink]:
        """Both ends keep this stream, under one number. Raises WireError("duplicate") where they keep another."""
        pair, number, message = link.pair, None, None
        if pair.leads:
            number = pair.take(hello.boot, StreamNumber(hello.ended.boot, hello.ended.number))
            if number:
                message = self._messages.kind(taken=pb.Taken(number=number.number))
        else:
            taken = self._messages.read(await stream.read(), "taken").taken
            newest = StreamNumber(hello.boot, taken.number)
            number = newest if pair.follow(newest) else None
        if number is None:
            raise WireError("duplicate", f"{self._own} has another stream with {hello.name}")
        return Greeted(link, hello, stream, number, message)

    # --- refusing -----------------------------------------------------------------------------------

    async def refuse(self, stream: Stream, problem: WireError) -> None:
        """Count a refusal, and tell the peer, if it still listens."""
        self._book.count(problem.reason)
        await self.tell(stream, problem)

    async def tell(self, stream: Stream, problem: WireError) -> None:
        """Tell the peer that it is refused, if it still listens. A peer that has refused this node needs no answer."""
        if problem.reason != "refused":
            with contextlib.suppress(StreamBrokenError):
                await stream.write(self._messages.refusal(problem, self._own))
