"""One process of the trainer, as the daemon sees it: its socket, its exit code, and what it says at its end.

A trainer on one device is one such process, and on several devices one for each: its ranks.
"""

import abc
import asyncio
import contextlib
import os
import site
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from deca_node.daemon.trainer import boot, messages
from deca_node.process.priority import give_way
from deca_node.protocol import events as e
from deca_node.protocol.errors import TrainerError
from deca_node.storage.jsons import UNFIT

BOOT = str(Path(boot.__file__).resolve())
LINE_BYTES_MAX = 1 << 20
END_SECONDS = 5.0


class Cause(IntEnum):
    """How near a failure is to the cause of it: the lower, the nearer."""

    KILLED = 0
    FAILED = 1
    LOST_ANOTHER = 2


@dataclass(frozen=True)
class Failure:
    """The end of a process that was not asked to end."""

    cause: Cause
    event: e.TrainerFailed


class Rank(abc.ABC):
    """A process that runs, or has ended, on this server or on another. ``name`` is its name among several ranks; empty
    if it is the only one."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    @property
    @abc.abstractmethod
    def pid(self) -> int | None:
        """The process's number while it runs on this server."""

    @abc.abstractmethod
    async def connect(self, setup: object) -> asyncio.StreamReader:
        """Send the first message; returns where its own messages come from."""

    @abc.abstractmethod
    def send(self, body: object, slots: messages.Slots | None = None) -> None:
        """Send one message; a process that has ended gets nothing."""

    @abc.abstractmethod
    async def end(self) -> None:
        """Have it end, and kill it if it does not."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End it at once."""

    @abc.abstractmethod
    async def code(self) -> int | None:
        """The exit code, once the process has ended; None if its server has gone."""

    async def messages(self, reader: asyncio.StreamReader) -> AsyncIterator[Any]:
        """Its messages. The last item is a :class:`Failure`, unless the process ends as it was asked to."""
        try:
            while line := await reader.readline():
                body = messages.decode(line).body
                if isinstance(body, e.TrainerFailed):
                    yield Failure(Cause.FAILED, e.TrainerFailed(self._named(body.sentence), body.exit_code, body.died))
                    return
                if isinstance(body, messages.RankLost):
                    yield self._failure(Cause.LOST_ANOTHER, body.sentence)
                    return
                if isinstance(body, messages.RankEnded):
                    yield self._ended(body.code)
                    return
                yield body
        except OSError:
            pass
        except UNFIT as problem:
            sentence = f"the trainer sent a malformed message: {problem}"
            yield Failure(Cause.FAILED, e.TrainerFailed(self._named(sentence), TrainerError.exit_code))
            return
        yield self._ended(await self.code())

    def _ended(self, code: int | None) -> Failure:
        if code is None:
            return self._failure(Cause.KILLED, "its server has gone, or the network between them")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        advice = " (out of memory?)" if code == -9 else ""
        return self._failure(Cause.KILLED if code else Cause.LOST_ANOTHER, f"the trainer process {how}{advice}")

    def _failure(self, cause: Cause, sentence: str) -> Failure:
        return Failure(cause, e.TrainerFailed(self._named(sentence), TrainerError.exit_code, died=True))

    def _named(self, sentence: str) -> str:
        return f"{self.name}: {sentence}" if self.name else sentence


class RankProcess(Rank):
    """A process on this server."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket, name: str = "") -> None:
        super().__init__(name)
        self._process = process
        self._connection = connection
        self._exit = _exit_of(process)
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    def start(cls, priority: str, *shared: int, name: str = "") -> "RankProcess":
        """Start a process; it inherits the descriptors ``shared``. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as failing:
            failing.callback(ours.close)
            process = _spawn(theirs.fileno(), *shared)
            failing.pop_all()
        give_way(process.pid, priority)
        return cls(process, ours, name)

    @property
    def pid(self) -> int | None:
        """See :class:`Rank`."""
        return self._process.pid if self._process.returncode is None else None

    async def connect(self, setup: object) -> asyncio.StreamReader:
        """See :class:`Rank`."""
        reader, self._writer = await asyncio.open_connection(sock=self._connection, limit=LINE_BYTES_MAX)
        self._writer.write(messages.encode(setup))
        return reader

    def send(self, body: object, slots: messages.Slots | None = None) -> None:
        """See :class:`Rank`."""
        if self._writer and not self._writer.is_closing():
            self._writer.write(messages.encode(body, slots))

    async def end(self) -> None:
        """Close its socket, and kill it if it does not end then."""
        if self._writer:
            self._writer.close()
        if not self._exit.done():
            try:
                async with asyncio.timeout(END_SECONDS):
                    await asyncio.shield(self._exit)
            except TimeoutError:
                self.kill()
                await asyncio.shield(self._exit)

    def kill(self) -> None:
        """See :class:`Rank`."""
        self._process.kill()

    async def code(self) -> int | None:
        """See :class:`Rank`."""
        return await asyncio.shield(self._exit)


def _spawn(*descriptors: int) -> "subprocess.Popen[bytes]":
    """Start the process; it inherits ``descriptors``. Raises OSError.

    It gets a process group of its own: signals to the node's group, such as a terminal's, would meet it before it can
    ignore them. It stays in the node's session, because Linux shares cores among sessions before it looks at
    priorities. asyncio cannot make a process group, so this is Python's own Popen, which returns within milliseconds.
    """
    return subprocess.Popen(
        [sys.executable, _isolation(), BOOT, *map(str, descriptors)],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=_environment(),
        process_group=0,
    )


def _exit_of(process: "subprocess.Popen[bytes]") -> "asyncio.Future[int]":
    """The exit code of a process, once it has one. A thread waits for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()

    def wait() -> None:
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop may have ended
            loop.call_soon_threadsafe(future.set_result, code)

    threading.Thread(target=wait, daemon=True).start()
    return future


def _isolation() -> str:
    """The flag that keeps the working directory and the script's folder off the trainer's module search path.

    ``-I`` also ignores PYTHONPATH and the user's own site-packages. If packages may come from one of the two, ``-P``
    keeps them.
    """
    user_site = bool(site.ENABLE_USER_SITE) and Path(site.getusersitepackages()).is_dir()
    return "-P" if user_site or os.environ.get("PYTHONPATH") else "-I"


def _environment() -> dict[str, str]:
    """This process's environment. An empty entry of PYTHONPATH would stand for the working directory, so it goes."""
    environment = dict(os.environ)
    if "PYTHONPATH" in environment:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, environment["PYTHONPATH"].split(os.pathsep)))
    return environment
