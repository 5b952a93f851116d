"""Every file that the daemon's process writes fails in turn, on a real process. None of that is an internal error.

The process has a trainer without torch (quick_trainer.py), so a whole run takes a second. What happens for each file is
listed in docs/OPERATIONS.md, under "What a node writes".
"""

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deca_node.lab.rigs.processes import free_ports
from deca_node.storage.durable import OLD, PARTIAL
from tests.patience import PATIENCE_SECONDS

SCRIPT = Path(__file__).with_name("on_a_bad_disk.py")
PAGE = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"
FAULTS = ("read-only", "full")
COMPLETE = "the run is complete"
KILLED_IN_PARTS = 12
"""Each part takes every twelfth change, so that no test takes too long on a slow machine."""
UNWRITTEN = r"nothing can be written to \S*{}\S*: .*; training goes on"

# Name of the file, and what a node says if it cannot be written: from the start, and on a node that runs.
GOES_ON = {
    "metrics.jsonl": (UNWRITTEN.format("metrics.jsonl"), UNWRITTEN.format("metrics.jsonl")),
    "node.log": (UNWRITTEN.format("node.log"), UNWRITTEN.format("node.log")),
    "curves": (UNWRITTEN.format("events"), UNWRITTEN.format("events")),
    "settings.json": ("the settings are not written down", COMPLETE),
    "page.json": (COMPLETE, COMPLETE),
    "heldout.json": ("cannot write held-out losses to node: ", "cannot write held-out losses to node: "),
    "admin.sock": ("there is no socket at", COMPLETE),
}
ENDS = {"run.json": "cannot write .*run.json: .*; make room, or repair the disk, and start again"}
FOLDER = (".", "lock")
WITH_PEERS = {"incoming", "track", "run.toml", "model", "metrics-DATE.jsonl", "standard error"}
"""Rows of the table that are tested elsewhere: a node alone and without trackers does not write them."""


class Machine:
    """A folder with everything that a node needs, and one node in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "model").mkdir()
        (folder / "data.jsonl").write_text("")
        (folder / "peers.txt").write_text(f"north@127.0.0.1:{free_ports(1)[0]}\n")
        (folder / "run.toml").write_text("rounds = 1\ninner_steps = 2\nfinal_flush_mixes = 1\nearly_stop_rounds = 1\n")

    def run(self, name: str = "*", fault: str = "none", from_loop: bool = False, at: int = 0) -> tuple[int, str]:
        """Run the node to its end; its exit code and its standard error."""
        plan = {
            "folder": "node",
            "name": name,
            "fault": fault,
            "from_loop": from_loop,
            "at": at,
            "seen": "seen.txt",
        }
        flags = ["--insecure", "--peers", "peers.txt", "--name", "north", "--model", "model", "--data", "data.jsonl"]
        command = [sys.executable, "-P", str(SCRIPT), json.dumps(plan), "start", *flags, "--dir", "node"]
        done = subprocess.run(
            [*command, "--tensorboard", "node/curves"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
        return done.returncode, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_every_file_that_a_node_writes_is_in_the_table(machine: Machine) -> None:
    code, told = machine.run()
    assert code == 0, told
    seen = set((machine.folder / "seen.txt").read_text().split())
    assert seen == {*GOES_ON, *ENDS, *FOLDER}, "a file without a test"
    section = PAGE.read_text().partition("**What a node writes, ")[2].partition("\n**")[0]
    table = set(re.findall(r"^\| `?([^`|]+?)`? \|", section, re.MULTILINE)) - {"file", "---"}
    names = {"DIR" if name == "." else "tensorboard" if name == "curves" else name for name in seen}
    assert table == names | WITH_PEERS


WHEN = ["from the start", "later"]
CASES = [
    pytest.param(name, fault, when, marks=pytest.mark.slow if (fault, when) == ("full", WHEN[0]) else ())
    for name in GOES_ON
    for fault in FAULTS
    for when in WHEN
]


@pytest.mark.parametrize(("name", "fault", "when"), CASES)
def test_training_goes_on_without(machine: Machine, name: str, fault: str, when: str) -> None:
    code, told = machine.run(name, fault, from_loop=when == "later")
    assert code == 0, told
    assert re.search(GOES_ON[name][WHEN.index(when)], told), told
    assert COMPLETE in told


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ENDS)
def test_a_new_run_does_not_begin_without(machine: Machine, name: str, fault: str) -> None:
    code, told = machine.run(name, fault)
    assert code == 10, told
    assert re.search(ENDS[name], told.splitlines()[-1]), told


@pytest.mark.parametrize("name", [*FOLDER, "*"])
def test_a_folder_that_is_read_only_is_refused(machine: Machine, name: str) -> None:
    code, told = machine.run(name, "read-only")
    assert (code, "cannot use node as this node's folder: Read-only file system" in told) == (10, True), told


@pytest.mark.parametrize("name", FOLDER)
def test_a_lock_needs_no_room(machine: Machine, name: str) -> None:
    assert machine.run(name, "full")[0] == 0


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a machine whose node has run before, but has no tuned model yet."""
    machine = Machine(tmp_path_factory.mktemp("begun"))
    machine.run()
    (machine.folder / "node" / "final").rmdir()
    return machine.folder / "node"


@pytest.mark.parametrize(("fault", "when"), [("full", "from the start"), ("full", "later"), ("read-only", "later")])
def test_the_whole_disk_fails_under_a_node_that_goes_on(machine: Machine, begun: Path, fault: str, when: str) -> None:
    """The trainer's process, which writes the tuned model, has a disk of its own here."""
    shutil.copytree(begun, machine.folder / "node", ignore=shutil.ignore_patterns("admin.sock"))
    code, told = machine.run("*", fault, from_loop=when == "later")
    assert code == 0, told
    assert COMPLETE in told


@pytest.mark.slow
@pytest.mark.parametrize("part", range(KILLED_IN_PARTS))
def test_a_node_that_is_killed_at_any_change_of_its_folder_starts_again(part: int, machine: Machine) -> None:
    """Each start is killed some changes later than the one before it, and is followed by an ordinary one."""
    for at in itertools.count(part, KILLED_IN_PARTS):
        code, told = machine.run(fault="killed", at=at)
        if code == 0:
            break
        assert code == -signal.SIGKILL, told
        code, told = machine.run()
        assert (code, COMPLETE in told) == (0, True), told
        left = [path.name for path in (machine.folder / "node").iterdir() if path.suffix in {PARTIAL, OLD}]
        assert left == [], f"killed at change {at}"
        shutil.rmtree(machine.folder / "node")
    assert at > 50, "changes of one run"
