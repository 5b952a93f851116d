"""Looking up seeds: a wrong name or a mute name server concerns its own seed only."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deca_node.daemon.settings import lookup
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.lookup import LocalHosts, LookupFailedError, SeedLookup, look_up, numeric
from tests.patience import PATIENCE_SECONDS

REAL = socket.getaddrinfo
MUTE = [Address(f"mute{number}.example", 7001) for number in range(40)]
WRONG = [Address("node..example.com", 7001), Address("a" * 64 + ".example", 7001)]
GOOD = Address("good.example", 7001)


class Names:
    """A name server: it knows good.example, and never answers for mute names until the test ends."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.good = "192.0.2.7"

    def __call__(self, host: str, port: int, *more: Any, **options: Any) -> list[tuple[Any, ...]]:
        if options.get("flags", 0) & socket.AI_NUMERICHOST or host in {"localhost", "127.0.0.1"}:
            return list(REAL(host, port, *more, **options))
        if host.startswith("mute"):
            self.ended.wait(PATIENCE_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host == GOOD.host and self.good:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.good, port))]
        "".join(host).encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    server = Names()
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.ended.set()


async def told(seeds: list[Address], until: Callable[[SeedLookup, tuple[str, ...]], bool]) -> tuple[Any, list[str]]:
    """The last addresses and all notes of a look-up, once ``until`` holds for it."""
    notes: list[str] = []
    found: list[tuple[str, ...]] = []
    happened = asyncio.Event()

    def changed(addresses: tuple[str, ...]) -> None:
        found.append(addresses)
        happened.set()

    def note(sentence: str, level: str) -> None:
        notes.append(f"{level}: {sentence}")
        happened.set()

    watch = SeedLookup(changed, note)
    watch.set_seeds(seeds)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not until(watch, found[-1]):
            happened.clear()
            await happened.wait()
    watch.close()
    return found[-1], notes


@pytest.mark.usefixtures("names")
def test_wrong_and_mute_seeds_delay_no_other() -> None:
    seeds = [*MUTE, *WRONG, GOOD, Address("192.0.2.8", 7002)]
    began = time.monotonic()
    found, notes = asyncio.run(told(seeds, lambda watch, found: len(found) == 2 and len(watch.problems) == len(WRONG)))
    assert set(found) == {"192.0.2.7:7001", "192.0.2.8:7002"}
    assert time.monotonic() - began < lookup.MUTE_SECONDS, "nothing waited for the mute name server"
    assert len(notes) == len(WRONG)
    assert all("warning: seed " in note and "is not a host name: a part between its dots" in note for note in notes)


def test_a_mute_name_server_is_named_per_seed(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MUTE_SECONDS", 0.01)
    _, notes = asyncio.run(told(MUTE[:3], lambda watch, _: len(watch.problems) == 3))
    assert sorted(notes) == [
        f"warning: seed mute{n}.example:7001: the name server has not answered for 0.01 s; "
        "the other seeds do not wait for it"
        for n in range(3)
    ]
    names.ended.set()


def test_addresses_outlive_a_name_server_that_fails_but_not_a_name_that_is_gone(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "PAUSE_SECONDS", 0.0)

    async def life() -> None:
        found: list[tuple[str, ...]] = []
        notes: asyncio.Queue[str] = asyncio.Queue()
        watch = SeedLookup(found.append, lambda sentence, _level: notes.put_nowait(sentence))
        answer = socket.getaddrinfo

        def fail(host: str, port: int, *more: Any, **options: Any) -> Any:
            if options.get("flags", 0) & socket.AI_NUMERICHOST:
                return answer(host, port, *more, **options)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        async with asyncio.timeout(PATIENCE_SECONDS):
            watch.set_seeds([GOOD])
            monkeypatch.setattr(socket, "getaddrinfo", fail)
            assert "Temporary failure" in await notes.get()
            monkeypatch.setattr(socket, "getaddrinfo", names)
            assert await notes.get() == "seed good.example:7001: the name has an address now"
            assert found == [(), ("192.0.2.7:7001",)]
            monkeypatch.setattr(socket, "getaddrinfo", fail)
            assert "Temporary failure" in await notes.get()
            assert found[-1] == ("192.0.2.7:7001",)
            names.good = ""
            monkeypatch.setattr(socket, "getaddrinfo", names)
            assert "Name or service not known" in await notes.get()
        # The note comes before the change.
        watch.set_seeds([])
        assert found[-1] == ()
        watch.close()

    asyncio.run(life())


@pytest.mark.usefixtures("names")
def test_hosts_are_compared_with_this_machine_side_by_side() -> None:
    hosts = [*(seed.host for seed in (*MUTE, *WRONG)), "localhost", "127.0.0.1"]
    is_local = LocalHosts(hosts, seconds_max=0.5)
    began = time.monotonic()
    assert [host for host in hosts if is_local(host)] == ["localhost", "127.0.0.1"]
    assert time.monotonic() - began < lookup.MUTE_SECONDS


def test_a_link_local_address_keeps_its_interface() -> None:
    interface = socket.if_indextoname(1)
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 7001, 0, 1))]
    assert numeric(found, 7001) == (f"[fe80::1%{interface}]:7001",)
    unknown = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 7001, 0, 4_000_000))]
    assert numeric(unknown, 7001) == ("[fe80::1%4000000]:7001",)
    asked = asyncio.run(look_up(Address(f"fe80::1%{interface}", 7001)))
    assert numeric(asked, 7001) == (f"[fe80::1%{interface}]:7001",)


@pytest.mark.parametrize("seed", WRONG)
def test_a_name_that_no_resolver_takes(seed: Address) -> None:
    with pytest.raises(LookupFailedError, match="is not a host name") as raised:
        asyncio.run(look_up(seed))
    assert raised.value.lasting
