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
    monkeypatch.setattr(sys, "stdin", io.StringIO("notes.jsonl\nb\na@10.0.0.5:7001 b@10.0.0.6:7001\n\ny\n"))
    assert deca("init", "--model", "./model").code == 0
    assert settings(deca) == {"name": "b", "model": "./model", "data": "notes.jsonl", "insecure": 2}
    assert read_peers(Path("peers.txt")).names == ("a", "b")


def test_the_second_party_is_asked_too(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deca_node.cli.verbs.init._on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("south.jsonl\n\n127.0.0.1:7002\n\n"))
    assert deca("init", "--join", "127.0.0.1:7001").code == 0
    found = settings(deca)
    assert (found["name"], found["listen"], found["insecure"]) == ("south", "127.0.0.1:7002", 1)


# --- a length that fits a time --------------------------------------------------------------------------


@pytest.fixture
def notes(deca: Deca) -> None:
    lines = [json.dumps({"text": f"the node {number} is the block of the peer"}) for number in range(40)]
    Path("notes.jsonl").write_text("\n".join(lines))


@pytest.mark.usefixtures("notes")
def test_a_length_that_fits_the_time_and_the_data(deca: Deca, tiny: Path) -> None:
    outcome = deca("init", "--model", str(tiny), "--data", "notes.jsonl", "--insecure", "--minutes", "60")
    assert outcome.code == 0
    found = settings(deca)
    assert found["sequence_length"] == 64, "the model takes no more, and no record needs more"
    # 40 records with 10 % held out are 4 to 5 batches of 8, each block sees them 4 times, and an hour is plenty.
    assert found["rounds"] * found["inner_steps"] in range(4, 20)
    assert found["learning_rate"] == 0.01, "the model has 22,176 parameters"
    said = outcome.out.partition("length: ")[2]
    assert f"{found['rounds']} round" in said
    assert "on this machine with 2 nodes at work on it" in said
    assert "Next:\n  deca-node plan --step-seconds 0." in said
    assert "# Chosen by init --minutes 60: " in Path("run.toml").read_text()


@pytest.mark.usefixtures("notes")
def test_too_short_a_time_is_said(deca: Deca, tiny: Path) -> None:
    outcome = deca("init", "--model", str(tiny), "--data", "notes.jsonl", "--insecure", "--minutes", "1e-9")
    assert settings(deca)["rounds"] == 1
    assert "shortest" in outcome.out


def test_without_records_there_is_no_length(deca: Deca, tiny: Path) -> None:
    outcome = deca("init", "--model", str(tiny), "--data", "notes.jsonl", "--insecure", "--minutes", "5")
    assert outcome.code == 6
    assert "notes.jsonl" in outcome.err
    assert list(Path().iterdir()) == []


def test_the_second_party_has_no_say_in_the_length(deca: Deca) -> None:
    outcome = deca("init", "--join", "h:1", "--listen", "h:2", "--data", "d", "--minutes", "5")
    assert (outcome.code, "--minutes is for the party that writes run.toml" in outcome.err) == (3, True)


@pytest.mark.usefixtures("notes")
def test_a_preset_follows_the_length(deca: Deca, tiny: Path) -> None:
    arguments = ["--model", str(tiny), "--data", "notes.jsonl", "--insecure", "--minutes", "60", "--preset", "home"]
    assert deca("init", *arguments).code == 0
    assert (found := settings(deca))["mix_every"] == found["inner_steps"]
