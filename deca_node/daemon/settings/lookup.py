"""Looks up the host names of seeds: each seed on its own, again and again.

A host name may have many addresses, and others later: a Kubernetes headless service has one for each of its pods. So
names are looked up for as long as the node lives. A seed whose name is wrong, or whose name server is mute, delays no
other seed: every look-up has a thread of its own, and every seed has a problem of its own, as a sentence.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from deca_node.daemon.settings.address import Address, host_is_local

PAUSE_SECONDS = 10.0
"""Time between two look-ups of a name."""
MUTE_SECONDS = 5.0
"""A name server that has not answered for this long is said to be mute. The look-up goes on."""
SIDE_BY_SIDE = 256
"""Names that are looked up at one time; each has a thread."""

Found = list[tuple[Any, ...]]
"""What ``socket.getaddrinfo`` gives."""


class LookupFailedError(Exception):
    """Why a host has no address. ``lasting``: no later look-up can find one. ``temporary``: the name server did not
    answer, so addresses that it gave before may still be right."""

    def __init__(self, sentence: str, *, lasting: bool = False, temporary: bool = False) -> None:
        super().__init__(sentence)
        self.lasting = lasting
        self.temporary = temporary


async def look_up(address: Address) -> Found:
    """The socket addresses of a host, which may be numeric already. Raises LookupFailedError."""
    with contextlib.suppress(OSError, UnicodeError):
        # Without a name there is nobody to ask, and so nothing to wait for.
        return _look_up(address, socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Found] = loop.create_future()

    def settle(found: Found, problem: Exception | None) -> None:
        if answer.done():
            return
        if problem:
            answer.set_exception(problem)
        else:
            answer.set_result(found)

    def ask() -> None:
        found, problem = Found(), None
        try:
            found = _look_up(address)
        except (OSError, UnicodeError) as failure:
            problem = _sentence(address.host, failure)
        with contextlib.suppress(RuntimeError):  # The loop may have ended meanwhile.
            loop.call_soon_threadsafe(settle, found, problem)

    # A daemon thread, since a mute name server keeps it for long, and the process must be able to end.
    threading.Thread(target=ask, name=f"lookup {address.host}", daemon=True).start()
    return await answer


def _look_up(address: Address, flags: int = 0) -> Found:
    return list(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags))


def _sentence(host: str, problem: Exception) -> LookupFailedError:
    if isinstance(problem, UnicodeError):
        why = "a part between its dots is empty or longer than 63 characters"
        return LookupFailedError(f"{host} is not a host name: {why}", lasting=True)
    why = getattr(problem, "strerror", None) or str(problem)
    temporary = isinstance(problem, socket.gaierror) and problem.errno == socket.EAI_AGAIN
    return LookupFailedError(f"the name {host} has no address: {why}", temporary=temporary)


def numeric(found: Found, port: int) -> tuple[str, ...]:
    """The addresses as numeric host:port, without duplicates. A link-local IPv6 address keeps its interface."""
    return tuple(dict.fromkeys(str(Address(_host(each[4]), port)) for each in found))


def _host(where: tuple[Any, ...]) -> str:
    host, scope = str(where[0]), where[3] if len(where) > 3 else 0
    if not scope or "%" in host:
        return host
    try:
        return f"{host}%{socket.if_indextoname(scope)}"
    except OSError:
        return f"{host}%{scope}"


class LocalHosts:
    """Says of hosts whether they are this machine. The first question looks all of them up side by side. A host without
    an answer within ``seconds_max`` counts as another machine."""

    def __init__(self, hosts: Iterable[str], seconds_max: float = MUTE_SECONDS) -> None:
        self._hosts = list(dict.fromkeys(hosts))
        self._seconds_max = seconds_max
        self._local: set[str] | None = None

    def __call__(self, host: str) -> bool:
        """Whether ``host`` is this machine."""
        if self._local is None:
            self._local = set()
            self._look_up(self._local)
        return host in self._local

    def _look_up(self, local: set[str]) -> None:
        waiting, take = iter(self._hosts), threading.Lock()

        def work() -> None:
            while True:
                with take:
                    host = next(waiting, None)
                if host is None:
                    return
                if host_is_local(host):
                    local.add(host)

        threads = [threading.Thread(target=work, daemon=True) for _ in self._hosts[:SIDE_BY_SIDE]]
        end = time.monotonic() + self._seconds_max
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


class SeedLookup:
    """The addresses of all seeds, kept up to date.

    ``changed`` is called with all addresses at the start and after every change. ``note`` takes a sentence and a log
    level for each seed whose state has changed. ``problems`` says why a seed has no address now.
    """

    def __init__(self, changed: Callable[[tuple[str, ...]], None], note: Callable[[str, str], None]) -> None:
        self._changed = changed
        self._note = note
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._found: dict[Address, tuple[str, ...]] = {}
        self._told: tuple[str, ...] | None = None
        self._seats = asyncio.Semaphore(SIDE_BY_SIDE)
        self.problems: dict[Address, str] = {}

    def set_seeds(self, seeds: Sequence[Address]) -> None:
        """Follow these seeds from now on."""
        for gone in self._tasks.keys() - set(seeds):
            self._tasks.pop(gone).cancel()
            self._found.pop(gone, None)
            self.problems.pop(gone, None)
        for seed in seeds:
            if seed not in self._tasks:
                self._tasks[seed] = asyncio.ensure_future(self._follow(seed))
        self._tell()

    def close(self) -> None:
        """End all look-ups."""
        for task in self._tasks.values():
            task.cancel()

    async def _follow(self, seed: Address) -> None:
        while True:
            try:
                found = await self._ask(seed)
            except LookupFailedError as problem:
                if not problem.temporary:
                    self._found.pop(seed, None)
                self._trouble(seed, str(problem), "warning" if problem.lasting else "info")
                if problem.lasting:
                    return
            else:
                self._found[seed] = found
                if self.problems.pop(seed, None):
                    self._note(f"seed {seed}: the name has an address now", "info")
            self._tell()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, seed: Address) -> tuple[str, ...]:
        async with self._seats:
            asked = asyncio.ensure_future(look_up(seed))
            try:
                if not (await asyncio.wait({asked}, timeout=MUTE_SECONDS))[0]:
                    self._trouble(seed, f"the name server has not answered for {MUTE_SECONDS:g} s", "warning")
                return numeric(await asked, seed.port)
            finally:
                asked.cancel()

    def _trouble(self, seed: Address, sentence: str, level: str) -> None:
        if self.problems.get(seed) != sentence:
            self.problems[seed] = sentence
            self._note(f"seed {seed}: {sentence}; the other seeds do not wait for it", level)

    def _tell(self) -> None:
        """All addresses, in the order of the seeds."""
        found = tuple(dict.fromkeys(at for seed in self._tasks for at in self._found.get(seed, ())))
        if found != self._told:
            self._told = found
            self._changed(found)
