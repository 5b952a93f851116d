"""``start``: everything is checked at the door, and the daemon gets what the door has settled."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deca_node.cli.main import cli
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.sources import FILES, as_document, flag_of, setting_names

Deca = Callable[..., Any]


@pytest.fixture
def door(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> tuple[Deca, list[Any]]:
    """A folder in which ``start --insecure --name north`` works, and what the daemon was given."""
    given: list[Any] = []

    def run_node(*arguments: Any) -> int:
        given.extend(arguments)
        return 9

    monkeypatch.setitem(sys.modules, "deca_node.daemon.supervise", SimpleNamespace(run_node=run_node))
    Path("model").mkdir()
    Path("notes.jsonl").write_text('{"text": "x"}\n')
    Path("peers.txt").write_text("north@127.0.0.1:7001\nsouth@127.0.0.1:7002\n")
    Path("node.toml").write_text('model = "model"\ndata = "notes.jsonl"\n')
    return deca, given


def test_the_daemon_gets_settled_settings(door: tuple[Deca, list[Any]]) -> None:
    deca, given = door
    outcome = deca("start", "--insecure", "--name", "north", "--rounds", "2", "--gradient-checkpointing")
    assert outcome.err == "warning: listening on 127.0.0.1 in plaintext, within this machine only\n"
    assert outcome.code == 9, "the exit code is the daemon's"
    loaded, own, security = given
    assert (loaded.run.rounds, loaded.node.gradient_checkpointing, loaded.node.insecure) == (2, True, 1)
    assert (loaded.node.listen, loaded.node.dir) == ("127.0.0.1:7001", "deca-data/north")
    assert (own.name, str(own.advertise), own.wait_for) == ("north", "127.0.0.1:7001", 2)
    assert own.seeds == (Address("127.0.0.1", 7002),)
    assert security.credentials is None


def test_a_switch_can_be_turned_off_again(door: tuple[Deca, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    deca, given = door
    monkeypatch.setenv("DECA_GRADIENT_CHECKPOINTING", "true")
    deca("start", "--insecure", "--name", "north", "--no-gradient-checkpointing")
    assert given[0].node.gradient_checkpointing is False


def test_plaintext_anywhere_is_said_aloud(door: tuple[Deca, list[Any]]) -> None:
    deca, given = door
    outcome = deca("start", "--insecure", "--insecure", "--name", "north", "--listen", "0.0.0.0:7001")
    assert outcome.err.startswith("warning: listening on 0.0.0.0 in plaintext: anyone")
    assert given[0].node.listen == "0.0.0.0:7001"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--insecure", "--name", "north", "--listen", "0.0.0.0:7001"], 3, "error: with one --insecure"),
        (["--insecure", "--rounds", "0"], 3, "error: rounds = 0 is below"),
        (["--insecure", "--run", "gone.toml"], 3, "error: gone.toml cannot be read: No such file"),
        (["--insecure", "--model", ""], 3, "error: model is not set"),
        (["--insecure"], 4, "error: 2 lines of peers.txt are addresses of this machine"),
        (["--insecure", "--peers", "gone.txt"], 4, "error: the peers file gone.txt cannot be read: No such file"),
        (["--insecure", "--name", "north", "--model", "./gone"], 5, "error: there is no folder ./gone"),
        (["--insecure", "--name", "north", "--data", "gone.jsonl"], 6, "error: there is no data at gone.jsonl"),
        (["--insecure", "--name", "north", "--dir", "notes.jsonl"], 10, "error: notes.jsonl must be this node's"),
    ],
)
def test_the_door_refuses(door: tuple[Deca, list[Any]], arguments: list[str], code: int, said: str) -> None:
    deca, given = door
    outcome = deca("start", *arguments)
    assert outcome.code == code
    assert outcome.err.startswith(said)
    assert outcome.err.count("\n") == 1
    assert given == []


def test_without_a_certificate_it_says_how_to_get_one(door: tuple[Deca, list[Any]]) -> None:
    deca, given = door
    outcome = deca("start", "--name", "north")
    assert (outcome.code, given) == (3, [])
    assert "deca-node cert request north" in outcome.err
    assert "--insecure within this machine" in outcome.err


@pytest.mark.parametrize("verb", ["start", "join", "config"])
def test_every_setting_is_a_flag(verb: str) -> None:
    command = cli.get_command(None, verb)  # type: ignore[arg-type]
    assert command is not None
    flags = {flag for option in command.params for flag in option.opts}
    assert flags >= {flag_of(name) for kind in FILES for name in setting_names(kind)}


def test_help_has_a_heading_for_each_kind(deca: Deca) -> None:
    page = deca("start", "--help").out
    own, _, rest = page.partition("Node settings (this machine's own; node.toml):")
    node, _, run = rest.partition("Run settings (equal on all nodes; run.toml):")
    assert "--run" in own
    assert "--wait, --wait-seconds NUMBER" in node
    assert "[seconds; default: 120]" in node
    assert "--learning-rate NUMBER" in run
    assert "--codec fp32|bf16|int8|int4" in run


def test_joining_speaks_to_nobody_before_plaintext_is_allowed(door: tuple[Deca, list[Any]]) -> None:
    """One --insecure keeps a newcomer within this machine, and that is settled before it asks anybody for the run."""
    deca, given = door
    outcome = deca(
        "join",
        "10.255.255.1:7001",
        "--insecure",
        "--name",
        "north",
        "--peers",
        "gone.txt",
        "--listen",
        "127.0.0.1:7001",
    )
    assert (outcome.code, given) == (3, [])
    assert (
        "with one --insecure a node dials loopback addresses only, and the peer at 10.255.255.1 is elsewhere"
        in outcome.err
    )
    assert not Path("deca-data").exists()


def test_a_bare_start_names_everything_that_is_missing(deca: Deca) -> None:
    outcome = deca("start")
    assert outcome.code == 3
    first, *lines = outcome.err.splitlines()
    assert first == (
        "error: 4 things are missing: the model (--model), this node's data (--data), the peers (--peers FILE, or "
        "--join HOST:PORT) and a certificate, or --insecure"
    )
    assert sum(line.startswith("  ") for line in lines) == 3
    assert "  deca-node start --insecure --name north --model ./MODEL --data north.jsonl" in lines


def test_the_lines_to_copy_work(door: tuple[Deca, list[Any]]) -> None:
    """With a model and data in their places, each line starts a node."""
    deca, given = door
    Path("peers.txt").unlink()
    Path("node.toml").unlink()
    lines = [line.split() for line in deca("start", "--model", "model").err.splitlines() if line.startswith("  ")]
    Path("peers.txt").write_text("\n".join(lines[0][2:4]))
    for line, name in zip(lines[1:], ("north", "south"), strict=True):
        assert line[:2] == ["deca-node", "start"]
        Path(line[-1]).write_text("{}\n")
        assert deca(*line[1:]).code == 9
        assert given[-2].name == name


@pytest.mark.parametrize("flags", [["--model", "m", "--data", "d"], ["--model", "m", "--insecure"]])
def test_two_things_are_named_together(deca: Deca, flags: list[str]) -> None:
    assert deca("start", *flags).err.startswith("error: 2 things are missing: ")


def last_start(given: list[Any], folder: str) -> None:
    """Leave in the folder what the daemon leaves there at a start."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "settings.json").write_text(json.dumps(as_document(given[-3])))


@pytest.fixture
def begun(door: tuple[Deca, list[Any]]) -> tuple[Deca, list[Any]]:
    """A node's folder with the settings of its last start, which were flags."""
    deca, given = door
    Path("node.toml").unlink()
    flags = ["--name", "north", "--model", "model", "--data", "notes.jsonl", "--rounds", "7", "--max-upload", "5"]
    deca("start", "--insecure", "--dir", "nodes/north", *flags)
    last_start(given, "nodes/north")
    return deca, given


def test_a_start_goes_on_from_the_folder(begun: tuple[Deca, list[Any]]) -> None:
    deca, given = begun
    outcome = deca("start", "--dir", "nodes/north")
    assert outcome.code == 9
    assert outcome.err.splitlines()[0] == (
        "going on with the settings of the last start, nodes/north/settings.json; flags override them"
    )
    first, again = given[0], given[-3]
    assert (again.run, again.node) == (first.run, first.node)
    assert again.sources["rounds"].where == "nodes/north/settings.json:rounds"


def test_flags_then_variables_then_files_outrank_the_folder(
    begun: tuple[Deca, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deca, given = begun
    Path("run.toml").write_text("rounds = 6\n")
    deca("start", "--dir", "nodes/north")
    assert given[-3].run.rounds == 6
    monkeypatch.setenv("DECA_ROUNDS", "5")
    deca("start", "--dir", "nodes/north")
    assert given[-3].run.rounds == 5
    deca("start", "--dir", "nodes/north", "--rounds", "4", "--max-upload", "0")
    assert (given[-3].run.rounds, given[-3].node.max_upload, given[-3].node.name) == (4, 0.0, "north")


@pytest.mark.parametrize("flag", [["--model", "model"], ["--data", "notes.jsonl"]])
def test_a_start_that_names_model_or_data_is_a_start_of_its_own(begun: tuple[Deca, list[Any]], flag: list[str]) -> None:
    deca, _ = begun
    assert "things are missing" in deca("start", "--dir", "nodes/north", *flag).err


def test_certificates_end_the_plaintext_of_the_last_start(begun: tuple[Deca, list[Any]]) -> None:
    deca, _ = begun
    tls = ["--tls-cert", "n.crt", "--tls-key", "n.key", "--tls-ca", "ca.crt"]
    shown = json.loads(deca("config", "--json", "--dir", "nodes/north", *tls).out)
    assert (shown["node"]["insecure"]["value"], shown["node"]["model"]["value"]) == (0, "model")


def test_leave_to_go_on_alone_is_given_for_one_start(begun: tuple[Deca, list[Any]]) -> None:
    deca, given = begun
    deca("start", "--dir", "nodes/north", "--alone")
    assert given[-3].node.alone
    last_start(given, "nodes/north")
    deca("start", "--dir", "nodes/north")
    assert (given[-3].node.alone, given[-3].run.rounds) == (False, 7)


def test_damaged_settings_of_the_last_start_are_an_error(begun: tuple[Deca, list[Any]]) -> None:
    deca, _ = begun
    Path("nodes/north/settings.json").write_text('{"run": [')
    outcome = deca("start", "--dir", "nodes/north")
    assert (outcome.code, outcome.err) == (
        3,
        "error: nodes/north/settings.json cannot be read; give the settings as flags, as at the first start\n",
    )


def test_a_bare_start_names_the_folders_to_go_on_with(begun: tuple[Deca, list[Any]]) -> None:
    deca, given = begun
    last_start(given, "deca-data/south")
    Path("peers.txt").unlink()
    assert deca("start").err.endswith("deca-node start --dir deca-data/south\n")
