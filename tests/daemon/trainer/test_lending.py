"""Ranks on other servers: lent and started anew, named when they die, refused where they must be."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.settings.lent import check_private, read_secret
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.trainer import borrowed, lending, messages
from deca_node.daemon.trainer import link as link_module
from deca_node.daemon.trainer import rank as rank_module
from deca_node.daemon.trainer.borrowed import Lenders
from deca_node.daemon.trainer.lending import Lending, counted, lend
from deca_node.daemon.trainer.link import TrainerLink
from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from deca_node.protocol import events as e
from deca_node.protocol.errors import AddressError, NoAnswerError, SettingsError
from tests.daemon.trainer.test_link import options
from tests.e2e.testbed import until
from tests.patience import PATIENCE_SECONDS

# A trainer without torch. Rank 0 asks for all others, and once every rank has written a file with what it was told, one
# of them does what PLAN says.
BOOT = """
import json, os, signal, socket, sys, time
from pathlib import Path
stream = socket.socket(fileno=int(sys.argv[1])).makefile("rwb", buffering=0)
setup = json.loads(stream.readline())["body"]
rank, here = setup.get("rank", 0), Path(__file__).parent
say = lambda kind, **body: stream.write(json.dumps({"kind": kind, "body": body}).encode() + b"\\n")
if rank == 0:
    say("RanksWanted", devices=["cpu", *setup["elsewhere"]], place="tcp://[127.0.0.1]:1")
(here / f"rank-{rank}").write_text(json.dumps(setup))
victim, what = json.loads((here / "PLAN").read_text())
if rank == victim:
    while len(list(here.glob("rank-*"))) < 3:
        time.sleep(0.01)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    say("TrainerFailed", sentence="the trainer failed: OutOfMemoryError", exit_code=11, died=True)
stream.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "boot.py").write_text(BOOT)
    monkeypatch.setattr(rank_module, "BOOT", str(tmp_path / "boot.py"))
    monkeypatch.setattr(link_module, "CAUSE_SECONDS", 0.2)
    monkeypatch.setattr(borrowed, "CALL_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(lending, "RETRY_SECONDS", 0.01)
    return tmp_path


class Party:
    """A node, and another server that lends it two devices."""

    def __init__(self, folder: Path, secret: str = "s" * 16) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.told: asyncio.Queue[Any] = asyncio.Queue()
        self.said: list[str] = []
        self.link = TrainerLink(self.told.put_nowait, lambda _: None, Lenders(LOOPBACK, self.port, 2, "s" * 16))
        lent = Lending(LOOPBACK, self.port, ("cpu", "cpu"), secret, "/elsewhere/model", 1, name="far")
        self.server = asyncio.ensure_future(lend(lent, self.said.append))

    async def fail(self, rank: int, what: str) -> Any:
        """Start the trainer, in which one rank fails; returns what the node hears."""
        for file in self.folder.glob("rank-*"):
            file.unlink()
        (self.folder / "PLAN").write_text(json.dumps([rank, what]))
        await self.link.start(options(self.folder), "normal")
        return await self.told.get()


@asynccontextmanager
async def party(folder: Path) -> AsyncIterator[Party]:
    made = Party(folder)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield made
            await made.link.close()
            await made.server
    finally:
        made.server.cancel()
        with suppress(asyncio.CancelledError, SettingsError):
            await made.server


def test_a_rank_elsewhere_that_dies_is_named_and_all_start_again(folder: Path) -> None:
    """Whichever rank it is, however it dies; at the end the other server ends with the node."""

    async def life() -> None:
        async with party(folder) as both:
            killed = "the trainer process was killed by signal 9 (out of memory?)"
            assert await both.fail(2, "killed") == e.TrainerFailed(f"rank 2 (cpu@far): {killed}", 11, died=True)
            found = await both.fail(1, "failed")
            sentence = "rank 1 (cpu@far): the trainer failed: OutOfMemoryError"
            assert found == e.TrainerFailed(sentence, 11, died=True)
            assert await both.fail(0, "killed") == e.TrainerFailed(f"rank 0 (cpu): {killed}", 11, died=True)
            setups = [json.loads((folder / f"rank-{rank}").read_text()) for rank in range(3)]
            assert setups[0]["elsewhere"] == ["cpu@far", "cpu@far"]
            assert setups[0]["meet"] == LOOPBACK
            assert [each["options"]["model"] for each in setups[1:]] == ["/elsewhere/model"] * 2
        assert both.said[-1] == "the node has ended"

    asyncio.run(life())


def test_a_server_that_vanishes_is_named(folder: Path) -> None:
    async def life() -> None:
        async with party(folder) as both:
            task = asyncio.ensure_future(both.fail(9, "nothing"))
            await asyncio.to_thread(until, lambda: len(list(folder.glob("rank-*"))) == 3, "all ranks")
            both.server.cancel()
            found = await task
            assert found.sentence.endswith("(cpu@far): its server has gone, or the network between them")
            assert found.died
            with suppress(asyncio.CancelledError):
                await both.server
            both.server = asyncio.ensure_future(asyncio.sleep(0))

    asyncio.run(life())


def test_a_server_without_the_secret_is_turned_away(folder: Path) -> None:
    async def life() -> None:
        both = Party(folder, secret="t" * 16)
        starting = asyncio.ensure_future(both.link.start(options(folder), "normal"))
        with pytest.raises(SettingsError, match="the secret is not that of the node"):
            await asyncio.wait_for(both.server, PATIENCE_SECONDS)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await both.link.close()

    asyncio.run(life())


def test_a_server_that_finds_no_node_gives_up(folder: Path) -> None:
    lent = Lending(LOOPBACK, free_ports(1)[0], ("cpu",), "", "", 1, patience_seconds=0.05)
    said: list[str] = []
    with pytest.raises(NoAnswerError, match="no node waits for ranks at"):
        asyncio.run(lend(lent, said.append))
    assert said[-1].startswith("waiting for the node")


def test_a_port_that_is_taken_ends_the_trainer_in_words(folder: Path) -> None:
    async def life() -> Any:
        taken = await asyncio.start_server(lambda *_: None, LOOPBACK, 0)
        port = taken.sockets[0].getsockname()[1]
        told: asyncio.Queue[Any] = asyncio.Queue()
        link = TrainerLink(told.put_nowait, lambda _: None, Lenders(LOOPBACK, port, 2, ""))
        await link.start(options(folder), "normal")
        await link.close()
        taken.close()
        return await told.get()

    found = asyncio.run(life())
    assert found.exit_code == AddressError.exit_code
    assert "ranks_at = '127.0.0.1:" in found.sentence


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8", "2606:4700::1111"])
def test_an_address_that_others_reach_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="private network"):
        check_private(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "192.168.3.4", "fd00::1"])
def test_a_private_address_is_taken(host: str) -> None:
    check_private(host)


def test_a_secret_is_needed_but_on_loopback(tmp_path: Path) -> None:
    assert read_secret("", LOOPBACK) == ""
    with pytest.raises(SettingsError, match="need a secret in common"):
        read_secret("", "10.0.0.1")
    (tmp_path / "secret").write_text("short\n")
    with pytest.raises(SettingsError, match="fewer than 16 characters"):
        read_secret(str(tmp_path / "secret"), LOOPBACK)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_secret(str(tmp_path / "missing"), LOOPBACK)
    (tmp_path / "secret").write_text("s" * 32 + "\n")
    assert read_secret(str(tmp_path / "secret"), "10.0.0.1") == "s" * 32


@pytest.mark.parametrize(
    ("text", "devices"),
    [("cpu*2", ("cpu", "cpu")), ("cuda*2", ("cuda:0", "cuda:1")), ("cuda:1,cuda:3", ("cuda:1", "cuda:3"))],
)
def test_lent_devices_are_counted(text: str, devices: tuple[str, ...]) -> None:
    assert counted(text) == devices


@pytest.mark.parametrize("text", ["auto", "cuda", "4", "mps"])
def test_devices_that_only_torch_can_count_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="does not say how many"):
        counted(text)


@pytest.mark.parametrize(
    "given", [{"ranks_elsewhere": 2}, {"ranks_at": "10.0.0.1:29400"}, {"ranks_elsewhere": 1, "ranks_at": "nowhere"}]
)
def test_half_of_the_settings_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="ranks_at"):
        NodeSettings(**given)


def test_messages_between_servers_come_back() -> None:
    for body in (
        messages.Question("n"),
        messages.Lends("cpu", "far", "1", "p"),
        messages.TurnedAway("why"),
        messages.NodeEnds(),
        messages.RankEnded(-9),
    ):
        assert messages.decode(messages.encode(body)).body == body
