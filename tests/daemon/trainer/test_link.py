"""A real trainer's process: which code it runs, and what the daemon hears when it cannot start."""

import asyncio
import os
from pathlib import Path

import pytest

from deca_node.daemon.trainer import messages
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
        threads=1,
        micro_batch=0,
        gradient_checkpointing=False,
        holdout=0.1,
        eval_sequences=1,
        bad_records="stop",
        norm_limit=0.0,
        trace=False,
        dp_noise=0.0,
        dp_clip=1.0,
        dp_delta=1e-5,
        dp_epsilon=0.0,
    )


def first_event(folder: Path) -> e.TrainerEvent:
    """Start a trainer; returns the first event that it causes."""

    async def life() -> e.TrainerEvent:
        told: asyncio.Queue[e.TrainerEvent] = asyncio.Queue()
        remarks: list[messages.Remark] = []
        link = TrainerLink(told.put_nowait, remarks.append)
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
