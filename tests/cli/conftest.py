"""``deca(...)`` calls the command as the shell would, in an empty folder and an empty environment."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deca_node.cli.main import main
from tests.daemon.web.fake_admin import FakeAdmin, RunningAdmin

NODE_FOLDER = Path("deca-data") / "north"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def deca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DECA_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def call(*arguments: str) -> Outcome:
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that is small enough to be loaded at once."""
    from tests.e2e.testbed import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def door() -> FakeAdmin:
    """What the node of ``running`` answers."""
    return FakeAdmin()


@pytest.fixture
def running(deca: Callable[..., Outcome], door: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningAdmin]:
    """A node below ./deca-data, the only one there."""
    monkeypatch.setenv("COLUMNS", "200")
    made = RunningAdmin(NODE_FOLDER, door)
    yield made
    made.close()
