"""A start that the system refuses a path ends with a sentence, and with a code after which a person must act: every
setting that is a path, and the files that hold settings."""

import dataclasses
import datetime as dt
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security.certificates import NodeId, fingerprint_of
from deca_node.daemon.settings.node_settings import NodeSettings
from tests.cli.test_main import WITHOUT_ROOTS_RIGHTS
from tests.e2e.testbed import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [f.name for f in dataclasses.fields(NodeSettings) if f.metadata["unit"].startswith("path")]
FOR_A_PERSON = range(3, 8)
TLS = {"tls_ca": "ca.crt", "tls_cert": "north.crt", "tls_key": "north.key"}
OTHERS = {
    "http_token": {"http": "0.0.0.0:7900"},
    "ranks_secret": {"devices": "cpu*2", "ranks_elsewhere": "1", "ranks_at": "127.0.0.1:7903"},
}
"""Settings without which a path is not read."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with all that a start of one node needs, and the folder `closed`, which this user may not enter."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        make_tiny_model(folder / "model")
        (folder / "n.txt").write_text("some words, and some more\n" * 40)
        (folder / "peers.txt").write_text("north@127.0.0.1:7901\nsouth@127.0.0.1:7902\n")
        (folder / "run.toml").write_text("sequence_length = 8\n")
        (folder / "node.toml").write_text("")
        now = dt.datetime.now(dt.UTC)
        root = authority.init(folder / "authority", "deca.example", now)
        request = enrolment.request(folder / "certs", NodeId("deca.example", "north"))
        issued = authority.approve(folder / "authority", request, folder / "north.crt", now)
        enrolment.install(folder / "certs", issued.path, fingerprint_of(root), now)
        for name in ("closed/x", "others"):
            (folder / name).mkdir(parents=True)
        (folder / "closed").chmod(0)
        (folder / "others").chmod(0o555)
        yield folder
        (folder / "closed").chmod(0o700)


def start(folder: Path, **changed: str) -> "subprocess.CompletedProcess[str]":
    """Start a node that lacks nothing but what is changed."""
    flags = {
        "name": "north",
        "peers": "peers.txt",
        "model": "model",
        "data": "n.txt",
        "dir": "north",
        "wait_seconds": "1",
    }
    flags |= (
        {"run": "run.toml", "config": "node.toml"} | {name: f"certs/{file}" for name, file in TLS.items()} | changed
    )
    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
    demoted = WITHOUT_ROOTS_RIGHTS if os.geteuid() == 0 else []
    command = [*demoted, sys.executable, "-m", "deca_node", "start", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("setting", [*SETTINGS, "run", "config"])
def test_a_path_in_a_folder_that_this_user_may_not_enter(folder: Path, setting: str) -> None:
    done = start(folder, **OTHERS.get(setting, {}), **{setting: "closed/x"})
    assert done.returncode in FOR_A_PERSON, done
    last = done.stderr.splitlines()[-1]
    assert "closed/x" in last
    assert "Permission denied" in last


@pytest.mark.parametrize("setting", ["dir", "tensorboard"])
@pytest.mark.parametrize("path", ["others", "others/new"])
def test_a_folder_in_which_this_user_may_not_write(folder: Path, setting: str, path: str) -> None:
    done = start(folder, **{setting: path})
    assert done.returncode in FOR_A_PERSON, done
    assert f"{path}" in done.stderr.splitlines()[-1]
    assert "Permission denied" in done.stderr.splitlines()[-1]
