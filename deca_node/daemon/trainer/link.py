"""The daemon's end of the trainer: start its process, send commands, receive events, notice its death."""

import asyncio
import contextlib
import os
import site
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from deca_node.daemon.trainer import boot, messages
from deca_node.daemon.trainer.arena import shared_file
from deca_node.process.priority import give_way
from deca_node.protocol import events as e
from deca_node.protocol.errors import TrainerError
from deca_node.protocol.options import TrainerOptions
from deca_node.storage.jsons import UNFIT

BOOT = str(Path(boot.__file__).resolve())
LINE_BYTES_MAX = 1 << 20
END_SECONDS = 5.0
START_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses between attempts to start the process. There is one attempt more than there are pauses."""


class TrainerLink:
    """A trainer in its own process. ``tell`` takes its events, ``note`` takes its remarks while it loads."""

    def __init__(self, tell: Callable[[e.TrainerEvent], None], note: Callable[[messages.Remark], None]) -> None:
        self.memory = shared_file()
        self._tell = tell
        self._note = note
        self._process: subprocess.Popen[bytes] | None = None
        self._exit: asyncio.Future[int] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def pid(self) -> int | None:
        """The process that runs now, if any."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, setup: TrainerOptions, priority: str) -> None:
        """Start the process and send it ``setup``. A process that was started before is ended first.

        The system may refuse a process for a moment, so this tries again after longer and longer pauses. If every
        attempt fails, that is reported as TrainerFailed.
        """
        await self._end()
        for pause in (*START_PAUSES_SECONDS, None):
            try:
                await self._start_once(setup, priority)
            except OSError as problem:
                sentence = f"the trainer's process cannot be started: {problem.strerror or problem}"
            except Exception as problem:
                # The node must not wait for a trainer that will never come.
                self._tell(
                    e.TrainerFailed(f"the trainer's process cannot be started: {problem}", TrainerError.exit_code)
                )
                raise
            else:
                break
            if pause is None:
                advice = "raise the limits of processes, open files or memory"
                self._tell(e.TrainerFailed(f"{sentence}; {advice}", TrainerError.exit_code))
            else:
                self._note(messages.Remark(f"{sentence}; trying again in {pause:g} s", "warning"))
                await asyncio.sleep(pause)

    async def _start_once(self, setup: TrainerOptions, priority: str) -> None:
        self._ending = False
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as failing:
            failing.callback(ours.close)
            self._process = _spawn(theirs.fileno(), self.memory)
            self._exit = _exit_of(self._process)
            give_way(self._process.pid, priority)
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
            failing.pop_all()
        self._writer.write(messages.encode(setup))
        self._task = asyncio.ensure_future(self._listen(reader))

    def send(self, body: object, slots: messages.Slots | None = None) -> None:
        """Send one command, with the slots of the frames that it names. A dead trainer gets nothing; its death is
        reported as an event."""
        if self._writer and not self._writer.is_closing():
            self._writer.write(messages.encode(body, slots))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Pass on its messages until it fails or dies, and report that once."""
        try:
            while line := await reader.readline():
                body = messages.decode(line).body
                if isinstance(body, messages.Remark):
                    self._note(body)
                else:
                    self._tell(body)
                if isinstance(body, e.TrainerFailed):
                    return
        except ConnectionError:
            pass
        except UNFIT as problem:
            self._tell(e.TrainerFailed(f"the trainer sent a malformed message: {problem}", TrainerError.exit_code))
            return
        assert self._exit is not None
        code = await asyncio.shield(self._exit)
        if not self._ending:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            advice = " (out of memory?)" if code == -9 else ""
            self._tell(e.TrainerFailed(f"the trainer process {how}{advice}", TrainerError.exit_code, died=True))

    async def dismiss(self) -> None:
        """End the process and keep the shared memory."""
        await self._end()

    async def close(self) -> None:
        """End the process and free the shared memory."""
        await self._end()
        os.close(self.memory)

    async def _end(self) -> None:
        """Close its socket, and kill it if it does not end then."""
        self._ending = True
        if self._writer:
            self._writer.close()
        if self._process and self._exit and not self._exit.done():
            try:
                async with asyncio.timeout(END_SECONDS):
                    await asyncio.shield(self._exit)
            except TimeoutError:
                self._process.kill()
                await asyncio.shield(self._exit)
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


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
