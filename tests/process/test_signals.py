"""Signals at every stage of a node's process. None of them meets the system's default action."""

import ast
import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.process.signals import NOT_STARTED, Signals, Stopped
from tests.patience import PATIENCE_SECONDS

TERM, HUP = signal.SIGTERM, signal.SIGHUP
SCRIPT = Path(__file__).with_name("at_moments.py")
ROOT = Path(__file__).parents[2]

BEFORE_THE_NODE = (
    "module deca_node.cli.main",
    "module deca_node.cli.verbs.start",
    "load_settings",
    "find_own_address",
    "module deca_node.daemon.supervise",
    "run_node",
    "node_directory",
    "Daemon.__init__",
)
IN_THE_NODE = ("Network.start", "Administration.open", "TrainerLink.start", "TrainerLink._start_rank", "give_way")
LAST = "TrainerLink._listen"


def start(folder: Path, moments: dict[str, str]) -> tuple[int, str]:
    """Start a node that gets these signals; returns its exit code and its standard error."""
    told = ",".join(f"{moment}={number}" for moment, number in moments.items())
    flags = ["--insecure", "--peers", "peers.txt", "--name", "north", "--model", "model", "--data", "data.jsonl"]
    command = [sys.executable, "-P", str(SCRIPT), told, "start", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    return done.returncode, done.stderr


def test_every_moment_is_a_function_that_is_there() -> None:
    """A signal at another moment would never be sent, and its test would wait."""
    there = {name for file in (ROOT / "deca_node").rglob("*.py") for name in functions(ast.parse(file.read_text()))}
    assert {name for name in (*BEFORE_THE_NODE, *IN_THE_NODE, LAST) if not name.startswith("module ")} <= there


def functions(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{each}" for each in functions(ast.Module(node.body, [])))


@pytest.mark.parametrize("moment", BEFORE_THE_NODE)
def test_a_stop_before_the_node_ends_the_start(folder: Path, moment: str) -> None:
    code, told = start(folder, {moment: "SIGTERM"})
    assert (code, told.splitlines()[-1]) == (0, NOT_STARTED), told
    assert f"moment {moment}" in told


@pytest.mark.parametrize("moment", [*IN_THE_NODE, LAST])
def test_a_stop_while_the_node_starts_ends_it(folder: Path, moment: str) -> None:
    code, told = start(folder, {moment: "SIGINT"})
    assert code == 0, told
    assert "stopping after the current step" in told and f"moment {moment}" in told


def test_a_reload_at_any_moment_of_the_start_is_no_end(folder: Path) -> None:
    moments = dict.fromkeys((*BEFORE_THE_NODE, *IN_THE_NODE), "SIGHUP")
    code, told = start(folder, {**moments, LAST: "SIGTERM"})
    assert code == 0, told
    assert told.count("moment ") == len(moments) + 1
    assert "the peers file: read again" in told


# --- the handlers alone -----------------------------------------------------------------------------


def test_signals_before_the_loop_reach_the_node() -> None:
    signals, told = Signals(), list[str]()
    signals._installed = True
    signals._heard(HUP, None)
    with pytest.raises(Stopped) as stopped:
        signals._heard(TERM, None)
    assert stopped.value.code == 0

    async def life() -> None:
        # The exception above may have been lost in a destructor, for instance.
        signals.attach(lambda: told.append("stop"), lambda: told.append("reload"))
        signals._heard(TERM, None)
        signals._heard(HUP, None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(life())
    assert told == ["stop", "reload", "stop", "reload"]


def test_signals_after_the_node_change_nothing_but_the_time_of_the_exit() -> None:
    codes: list[int] = []
    signals = Signals(codes.append)
    signals.detach()
    for number in (TERM, HUP):
        signals._heard(number, None)
    assert codes == []
    signals.end(7)
    for number in (HUP, TERM):
        signals._heard(number, None)
    assert codes == [7]
