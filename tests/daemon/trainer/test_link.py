"""A real trainer's process: which code it runs, and what the daemon hears when it cannot start."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.trainer import link as link_module
from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer import rank as rank_module
from deca_node.daemon.trainer.link import TrainerLink
from deca_node.protocol import events as e
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.options import TrainerOptions
from tests.patience import PATIENCE_SECONDS

MARK = 'from pathlib import Path\nPath(__file__).with_name("RAN").touch()\n'


def options(folder: Path) -> TrainerOptions:
    """A start that fails as soon as the trainer's own code looks for its model."""
    return TrainerOptions(
        name="north",
        settings=RunSettings(),
        directory=str(folder),
        model=str(folder / "missing"),
        data=str(folder / "missing.jsonl"),
        device="cpu",
        devices="",
        parallel="auto",
        threads=1,
        attention="auto",
        micro_batch=0,
        gradient_checkpointing=False,
        holdout=0.1,
        eval_sequences=1,
        bad_records="stop",
        data_format="auto",
        columns="",
        chat_template="",
        norm_limit=0.0,
        trace=False,
        dp_noise=0.0,
        dp_clip=1.0,
        dp_delta=1e-5,
        dp_epsilon=0.0,
    )


def first_event(folder: Path, remarks: list[messages.Remark] | None = None) -> e.TrainerEvent:
    """Start a trainer; returns the first event that it causes."""

    async def life() -> e.TrainerEvent:
        told: asyncio.Queue[e.TrainerEvent] = asyncio.Queue()
        link = TrainerLink(told.put_nowait, [].append if remarks is None else remarks.append)
        try:
            await link.start(options(folder), "normal")
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await told.get()
        finally:
            await link.close()

    return asyncio.run(life())


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with files named like modules that every trainer imports."""
    for name in ("random.py", "heapq.py", "tokenizers.py", "sitecustomize.py"):
        (tmp_path / name).write_text(MARK)
    for folder in ("torch", "deca_node"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(MARK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_trainer_runs_no_code_of_the_working_directory(traps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    failed = first_event(traps)
    assert isinstance(failed, e.TrainerFailed)
    assert "missing" in failed.sentence, "the trainer's own code has run, and found no model"
    assert [str(path) for path in traps.rglob("RAN")] == []


def test_both_processes_run_the_same_package(traps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONPATH names another deca_node, and has an empty entry, which stands for the working directory."""
    elsewhere = traps / "elsewhere"
    (elsewhere / "deca_node").mkdir(parents=True)
    (elsewhere / "deca_node" / "__init__.py").write_text(MARK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep + str(elsewhere))
    failed = first_event(traps)
    assert isinstance(failed, e.TrainerFailed)
    assert "missing" in failed.sentence
    assert [str(path) for path in traps.rglob("RAN")] == []


class NoProcess:
    """A system that refuses the first ``failures`` new processes, as one does that has reached its limit."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self._start = subprocess.Popen

    def __call__(self, *arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        if self.left:
            self.left -= 1
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._start(*arguments, **options)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and a trainer that ends at once."""
    (tmp_path / "boot.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(rank_module, "BOOT", str(tmp_path / "boot.py"))
    monkeypatch.setattr(link_module, "START_PAUSES_SECONDS", (0.0, 0.0))


@pytest.mark.usefixtures("quick")
def test_a_process_that_the_system_refuses_is_started_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", NoProcess(failures=2))
    remarks: list[messages.Remark] = []
    assert first_event(tmp_path, remarks) == e.TrainerFailed("the trainer process ended with code 3", 11, died=True)
    sentence = "the trainer's process cannot be started: Resource temporarily unavailable; trying again in 0 s"
    assert remarks == [messages.Remark(sentence, "warning")] * 2


@pytest.mark.usefixtures("quick")
def test_after_some_attempts_the_node_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", NoProcess(failures=1000))
    failed = first_event(tmp_path)
    assert isinstance(failed, e.TrainerFailed)
    assert failed.sentence.startswith(
        "the trainer's process cannot be started: Resource temporarily unavailable; raise"
    )
    assert (failed.exit_code, failed.died) == (11, False), "the node ends, and a supervisor may start it again"


# A task of the system's first session is in no group of its own: the kernel then shows an empty file.
GROUPS = """
import os, sys
from pathlib import Path
autogroup = Path("/proc/self/autogroup")
shares = autogroup.read_text().partition(" ")[0].strip() if autogroup.exists() else ""
Path(__file__).with_name("GROUPS").write_text(f"{os.getpgid(0) == os.getpid()} {os.getsid(0)} {shares}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sessions share cores on Linux only")
def test_the_trainer_has_a_process_group_of_its_own_and_shares_the_node_s_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal's signals go to the node's group. Linux shares cores among sessions before it looks at priorities."""
    (tmp_path / "boot.py").write_text(GROUPS)
    monkeypatch.setattr(rank_module, "BOOT", str(tmp_path / "boot.py"))
    first_event(tmp_path)
    autogroup = Path("/proc/self/autogroup")
    shares = autogroup.read_text().partition(" ")[0].strip() if autogroup.exists() else ""
    assert (tmp_path / "GROUPS").read_text() == f"True {os.getsid(0)} {shares}"
