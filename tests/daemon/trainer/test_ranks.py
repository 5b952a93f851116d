"""Several processes of one trainer, seen from the daemon: what is told when some of them end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.trainer import link as link_module
from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer import rank as rank_module
from deca_node.daemon.trainer.link import TrainerLink
from deca_node.protocol import events as e
from tests.daemon.trainer.test_link import options
from tests.patience import PATIENCE_SECONDS

KILLED = "the trainer process was killed by signal 9 (out of memory?)"

# A trainer without torch: rank 0 asks for two others, and every rank does what PLAN says of it.
BOOT = """
import json, os, signal, socket, sys
from pathlib import Path
stream = socket.socket(fileno=int(sys.argv[1])).makefile("rwb", buffering=0)
setup = json.loads(stream.readline())
rank = setup["body"].get("rank", 0)
say = lambda kind, **body: stream.write(json.dumps({"kind": kind, "body": body}).encode() + b"\\n")
if rank == 0:
    say("RanksWanted", devices=["cuda:0", "cuda:1", "cuda:2"], place="")
plan = json.loads(Path(__file__).with_name("PLAN").read_text()).get(str(rank), "")
if plan == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if plan == "failed":
    say("TrainerFailed", sentence="the trainer failed: OutOfMemoryError", exit_code=11, died=True)
if plan == "lost":
    say("RankLost", sentence="a rank of the trainer does not answer the others: reset")
if plan == "tried":
    say("Tried", devices=["cuda:0", "cuda:1", "cuda:2"], nbytes=4, seconds=0.5)
stream.read()
"""


def first_told(folder: Path, monkeypatch: pytest.MonkeyPatch, plan: str) -> Any:
    (folder / "boot.py").write_text(BOOT)
    (folder / "PLAN").write_text(plan)
    monkeypatch.setattr(rank_module, "BOOT", str(folder / "boot.py"))
    monkeypatch.setattr(link_module, "CAUSE_SECONDS", 0.5)

    async def life() -> Any:
        told: asyncio.Queue[Any] = asyncio.Queue()
        link = TrainerLink(told.put_nowait, lambda _: None)
        try:
            await link.start(messages.Trial(options(folder)), "normal")
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await told.get()
        finally:
            processes = [rank._process for rank in link._ranks]
            await link.close()
            assert all(process.poll() is not None for process in processes), "no rank is left"

    return asyncio.run(life())


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ('{"0": "lost", "1": "lost", "2": "killed"}', f"rank 2 (cuda:2): {KILLED}"),
        ('{"0": "lost", "1": "failed", "2": "lost"}', "rank 1 (cuda:1): the trainer failed: OutOfMemoryError"),
        (
            '{"0": "killed", "1": "lost"}',
            "rank 0 (cuda:0): the trainer process was killed by signal 9 (out of memory?)",
        ),
        ('{"1": "lost"}', "rank 1 (cuda:1): a rank of the trainer does not answer the others: reset"),
    ],
)
def test_the_rank_that_caused_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str, sentence: str
) -> None:
    """Whichever of them is heard first; a rank that says nothing does not hold the rest up."""
    assert first_told(tmp_path, monkeypatch, plan) == e.TrainerFailed(sentence, 11, died=True)


def test_a_trial_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = first_told(tmp_path, monkeypatch, '{"0": "tried"}')
    assert found == messages.Tried(("cuda:0", "cuda:1", "cuda:2"), 4, 0.5)
