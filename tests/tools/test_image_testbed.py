"""The image test leaves a testbed that runs on the same machine alone, and starts what it means to start."""

import importlib
import itertools
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


class Loader(yaml.SafeLoader):
    """YAML with compose's tag that replaces a list instead of adding to it."""


Loader.add_constructor("!override", lambda loader, node: {"replaced by": loader.construct_sequence(node)})


class FakeEngine:
    """Answers every command with the same words, and remembers the commands."""

    def __init__(self, work: Path, says: str = "") -> None:
        self.repository, self.work, self.says = ROOT, work, says
        self.commands: list[tuple[str, ...]] = []

    def run(self, *command: str, check: bool = True) -> str:
        self.commands.append(command)
        return self.says


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool's module; tools import each other by their bare names."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("image_testbed")


def overlay(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((folder / "overlay.yaml").read_text(), Loader)["services"]
    return found


def test_project_images_and_ports_are_the_tests_own(tools: ModuleType, tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    testbed = tools.Testbed(engine, ROOT, tmp_path, "some:image", "compose.observability.yaml", rounds=2)
    testbed.up()
    (command,) = engine.commands
    assert command[:4] == ("docker", "compose", "--project-name", "deca-image-test")
    files = [Path(word) for before, word in itertools.pairwise(command) if before == "--file"]
    assert [file.name for file in files] == ["compose.yaml", "compose.observability.yaml", "overlay.yaml"]
    written = overlay(tmp_path)
    there = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert {name for name, service in written.items() if service.get("image") == "some:image"} == set(there)
    published = [*there, "prometheus", "grafana"]
    ports = {name: written[name]["ports"]["replaced by"] for name in published if "ports" in written.get(name, {})}
    assert set(ports) == {*tools.NODES, "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1::") for (port,) in ports.values())
    assert "rounds = 2\n" in (tmp_path / "run.toml").read_text()


def test_one_service_gets_another_image_and_variables(tools: ModuleType, tmp_path: Path) -> None:
    testbed = tools.Testbed(FakeEngine(tmp_path), ROOT, tmp_path, "old", rounds=2)
    testbed.environment = {key: {"DECA_CHECKPOINT_EVERY": None} for key in tools.NODES}
    testbed.images["west"], testbed.environment["west"] = "new", {"DECA_PACKING": "concatenated"}
    testbed.up("--no-deps", "west")
    written = overlay(tmp_path)
    assert [written[name]["image"] for name in tools.NODES] == ["old", "old", "old", "new"]
    assert written["west"]["environment"] == {"DECA_PACKING": "concatenated"}
    assert written["north"]["environment"] == {"DECA_CHECKPOINT_EVERY": None}


def test_steps_that_were_done_twice_are_counted(tools: ModuleType, tmp_path: Path) -> None:
    lines = [{"kind": "step", "ordinal": ordinal, "loss": 1.0} for ordinal in (0, 1, 2, 2, 3)]
    lines += [{"kind": "step", "ordinal": 3}, {"kind": "evaluation", "loss": 1.0}]
    engine = FakeEngine(tmp_path, "\n".join(map(json.dumps, lines)))
    assert tools.Testbed(engine, ROOT, tmp_path, "i", rounds=1).gradient_steps("north") == (4, 1)


def test_a_node_that_has_no_record_yet_has_done_no_step(tools: ModuleType, tmp_path: Path) -> None:
    assert tools.Testbed(FakeEngine(tmp_path, ""), ROOT, tmp_path, "i", rounds=1).gradient_steps("north") == (0, 0)
    said = subprocess.run(
        ["sh", "-c", tools.RECORDS.replace("/var/lib/deca", str(tmp_path))], capture_output=True, check=False
    )
    assert (said.returncode, said.stdout) == (0, b"")


def test_an_exit_code_that_is_not_0_fails(tools: ModuleType, tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, "north 0\neast 0\nsouth 137\nwest 0\n")
    with pytest.raises(Exception, match="'south': 137"):
        tools.Testbed(engine, ROOT, tmp_path, "i", rounds=1).stop()
