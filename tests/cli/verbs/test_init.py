"""``init``: its files are what ``start`` reads, it overwrites nothing, and on a terminal it asks."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.settings.peers_file import read_peers

Deca = Callable[..., Any]
GIVEN = ["--model", "./model", "--data", "notes.jsonl"]


def settings(deca: Deca, folder: str = ".") -> dict[str, Any]:
    """Every setting that does not have its default, as a start reads it from the files."""
    files = [(flag, f"{folder}/{name}.toml") for flag, name in (("--run", "run"), ("--config", "node"))]
    there = [word for flag, path in files if Path(path).exists() for word in (flag, path)]
    shown = json.loads(deca("config", "--json", *there).out)
    return {name: fact["value"] for kind in shown.values() for name, fact in kind.items() if fact["where"] != "default"}


def test_the_files_are_what_a_start_reads(deca: Deca) -> None:
    outcome = deca("init", *GIVEN, "--insecure")
    assert (outcome.code, outcome.err) == (0, "")
    assert settings(deca) == {"name": "north", "model": "./model", "data": "notes.jsonl", "insecure": 1}
    assert read_peers(Path("peers.txt")).names == ("north", "south")
    assert "warning: there is no data at notes.jsonl yet" in outcome.out
    assert "warning: there is no folder ./model yet" in outcome.out
    assert outcome.out.endswith("and a node.toml of its own.\n")
    assert "\n  deca-node start --name south --data south.jsonl   # in a terminal of its own\n" in outcome.out
    assert "# Number of rounds" in Path("run.toml").read_text(), "comments explain each setting"


def test_it_says_what_it_finds(deca: Deca, tiny: Path) -> None:
    Path("notes.jsonl").write_text('{"text": "x"}\n')
    out = deca("init", "--model", str(tiny), "--data", "notes.jsonl").out
    assert " parameters, " in out
    assert "data: 1 file, 14 B" in out
    assert "\nGPU: " in out
    assert "  deca-node cert --help " in out, "without --insecure a node needs a certificate"


def test_torch_is_not_imported(deca: Deca, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert deca("init", "--model", str(tiny), "--data", "notes.jsonl").code == 0


def test_peers_elsewhere_make_the_plaintext_wider(deca: Deca) -> None:
    deca("init", *GIVEN, "--name", "b", "--peer", "a@10.0.0.5:7001", "--peer", "b@10.0.0.6:7001", "--insecure")
    assert settings(deca)["insecure"] == 2
    assert Path("peers.txt").read_text().endswith("\na@10.0.0.5:7001\nb@10.0.0.6:7001\n")


def test_the_second_party_gets_its_own_file_only(deca: Deca) -> None:
    arguments = ["--join", "north.example:7001", "--listen", "10.0.0.6:7001", "--data", "south.jsonl"]
    outcome = deca("init", *arguments, "--into", "south")
    assert (outcome.code, sorted(path.name for path in Path("south").iterdir())) == (0, ["node.toml"])
    found = settings(deca, "south")
    assert found == {
        "name": "south",
        "data": "south.jsonl",
        "join": "north.example:7001",
        "listen": "10.0.0.6:7001",
    }
    assert outcome.out.endswith(
        "  cd south\n  deca-node cert --help      # each node needs a certificate\n"
        "  deca-node doctor           # checks whether a start would work\n"
        "  deca-node join north.example:7001\n"
    )


@pytest.mark.parametrize("name", ["run.toml", "node.toml", "peers.txt"])
def test_no_file_is_overwritten_without_force(deca: Deca, name: str) -> None:
    Path(name).write_text("# mine\n")
    outcome = deca("init", *GIVEN)
    assert outcome.code == 3
    assert (
        outcome.err
        == f"error: init overwrites nothing, and {name} exists: give --force, or another folder with --into\n"
    )
    assert [path.name for path in Path().iterdir()] == [name]
    assert Path(name).read_text() == "# mine\n"
    assert deca("init", *GIVEN, "--force").code == 0
    assert Path(name).read_text() != "# mine\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 3, "error: init needs --model and --data; on a terminal it asks for what is missing"),
        ([*GIVEN, "--peer", "a@h:1", "--name", "b"], 3, "error: --peer names a, but not this node, b"),
        ([*GIVEN, "--peer", "north"], 4, "error: --peer line 1: "),
        (["--join", "x", "--listen", "h:1", "--data", "d", "--insecure"], 3, "error: "),
        (["--join", "h:1", "--listen", "x", "--data", "d"], 3, "error: listen = "),
    ],
)
def test_wrong_answers_write_nothing(deca: Deca, arguments: list[str], code: int, said: str) -> None:
    outcome = deca("init", *arguments)
    assert outcome.code == code
    assert outcome.err.startswith(said)
    assert list(Path().iterdir()) == []


def test_a_terminal_is_asked_for_the_rest(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deca_node.cli.verbs.init._on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("notes.jsonl\nb\na@10.0.0.5:7001 b@10.0.0.6:7001\ny\n"))
    assert deca("init", "--model", "./model").code == 0
    assert settings(deca) == {"name": "b", "model": "./model", "data": "notes.jsonl", "insecure": 2}
    assert read_peers(Path("peers.txt")).names == ("a", "b")


def test_the_second_party_is_asked_too(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deca_node.cli.verbs.init._on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("south.jsonl\n\n127.0.0.1:7002\n\n"))
    assert deca("init", "--join", "127.0.0.1:7001").code == 0
    found = settings(deca)
    assert (found["name"], found["listen"], found["insecure"]) == ("south", "127.0.0.1:7002", 1)
