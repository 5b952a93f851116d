"""What a process inherits from its parent is set right, on real processes."""

import codecs
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.process import inherited
from tests.daemon.web.fake_admin import FakeAdmin, RunningAdmin
from tests.patience import PATIENCE_SECONDS
from tests.process.test_signals import LAST, SCRIPT

DECA = [sys.executable, "-P", "-m", "deca_node"]
FACTS = """
import json, os, resource, signal, sys
from deca_node.process import inherited
inherited.set_right()
print("\\N{LATIN SMALL LETTER U WITH DIAERESIS}\\N{GRINNING FACE}\\N{RIGHTWARDS ARROW}\\udcff", file=sys.stderr)
print(json.dumps({
    "umask": os.umask(0),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "child": os.waitstatus_to_exitcode(os.waitpid(os.spawnl(os.P_NOWAIT, "/bin/true", "true"), 0)[1]),
    "path": sys.path,
}))
"""


def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, text=True, timeout=PATIENCE_SECONDS, check=False, **{"capture_output": True} | options
    )


def facts(before: Callable[[], object] | None = None, **options: Any) -> tuple[dict[str, Any], str]:
    """What a child finds after it has set right what it inherited, and its standard error."""
    done = run([sys.executable, "-c", FACTS], preexec_fn=before, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


# --- one by one -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"), [(0o022, 0o022), (0o077, 0o077), (0o002, 0o002), (0, 0o002), (0o277, 0o077), (0o777, 0o077)]
)
def test_the_owner_may_use_its_files_and_others_may_not_write_them(before: int, after: int) -> None:
    assert facts(lambda: os.umask(before))[0]["umask"] == after


def test_the_limit_of_open_files_is_raised_as_far_as_it_may() -> None:
    assert facts(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 512)))[0]["files"] == 512


def test_signals_that_the_parent_blocked_or_ignored_are_heard() -> None:
    def before() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    found = facts(before)[0]
    assert (found["blocked"], found["child"]) == ([signal.SIGUSR1], 0)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_letter_is_an_error(encoding: str) -> None:
    told = facts(env={**os.environ, "PYTHONIOENCODING": encoding}, encoding=encoding)[1].strip()
    smile = "\N{GRINNING FACE}" if encoding == "utf-8" else "\\ud83d\\ude00"
    arrow = "\N{RIGHTWARDS ARROW}" if encoding == "utf-8" else "->"
    umlaut = "\\u00fc" if encoding == "ascii" else "\N{LATIN SMALL LETTER U WITH DIAERESIS}"
    assert told == f"{umlaut}{smile}{arrow}\\udcff"


def test_json_stays_json_in_every_encoding() -> None:
    codecs.register_error(inherited.ESCAPE, inherited.escaped)
    text = "S\N{LATIN SMALL LETTER U WITH DIAERESIS}d \N{GRINNING FACE}"
    assert json.loads('"' + text.encode("ascii", inherited.ESCAPE).decode() + '"') == text


@pytest.mark.parametrize(("path", "stays"), [("", False), (os.pathsep, False), (f"{os.pathsep}/x", False), (".", True)])
def test_the_working_directory_is_searched_only_if_that_was_asked_for(tmp_path: Path, path: str, stays: bool) -> None:
    found = facts(env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path)[0]["path"]
    assert ("" in found or str(tmp_path) in found) is stays


# --- the command line -------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(0,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_a_node_starts_without_standard_streams(folder: Path, closed: tuple[int, ...]) -> None:
    """The numbers of closed descriptors would be given to sockets, and gRPC would abort the process."""
    flags = ["--insecure", "--peers", "peers.txt", "--name", "north", "--model", "model", "--data", "data.jsonl"]
    command = [sys.executable, "-P", str(SCRIPT), f"{LAST}=SIGTERM", "start", *flags]
    done = run(command, cwd=folder, preexec_fn=lambda: [os.close(number) for number in closed], capture_output=False)
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_standard_error_on_a_full_disk_changes_no_exit_code(folder: Path) -> None:
    flags = [
        "--insecure",
        "--peers",
        "peers.txt",
        "--name",
        "north",
        "--model",
        "nowhere/at/all",
        "--data",
        "data.jsonl",
    ]
    with Path("/dev/full").open("wb") as full:
        done = run([*DECA, "start", *flags], cwd=folder, stderr=full, capture_output=False)
    assert done.returncode == 5


def test_a_working_directory_that_was_deleted_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = run([*DECA, "version"], cwd=tmp_path / "gone", preexec_fn=(tmp_path / "gone").rmdir)
    assert done.returncode == 3
    assert done.stderr == (
        "error: the working directory of this process does not exist any more; change to another folder\n"
    )


def test_no_code_of_the_working_directory_runs(tmp_path: Path) -> None:
    for name in ("asyncio.py", "contextlib.py", "random.py", "click.py"):
        (tmp_path / name).write_text("from pathlib import Path\nPath(__file__).with_name('RAN').touch()\n")
    done = run([sys.executable, "-m", "deca_node", "version"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_top_and_doctor_on_a_terminal_that_is_not_utf_8(folder: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    running = RunningAdmin(folder / "node", FakeAdmin())
    try:
        top = run([*DECA, "top", "--dir", "node", "--once"], cwd=folder, env=environment, encoding=encoding)
    finally:
        running.close()
    assert top.returncode == 0, top.stderr
    flags = ["--insecure", "--peers", "peers.txt", "--name", "north", "--model", "model", "--data", "data.jsonl"]
    doctor = run([*DECA, "doctor", *flags], cwd=folder, env=environment, encoding=encoding)
    assert doctor.returncode == 13, "the model has no files"
    assert "-> " in doctor.stdout
