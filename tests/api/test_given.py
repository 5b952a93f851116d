"""Keyword arguments as settings and as flags: the same names, the same checks, the same sentences."""

import json
import stat
from pathlib import Path
from typing import Any

import click
import pytest

import deca_node
from deca_node.cli.options import load, settings_options
from deca_node.protocol.errors import DataError, SettingsError

PEERS = ["north@127.0.0.1:7001", "south@127.0.0.1:7002"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def node(**settings: Any) -> deca_node.Node:
    given: dict[str, Any] = {"model": "m", "data": "d.jsonl", "peers": PEERS, "name": "north", "insecure": True}
    return deca_node.Node(**(given | settings))


def read_back(words: list[str]) -> Any:
    """What the command line makes of these words."""
    found = []

    @click.command()
    @settings_options
    @click.pass_context
    def command(ctx: click.Context, **_flags: Any) -> None:
        found.append(load(ctx))

    command.main(words, standalone_mode=False)
    return found[0]


def test_the_command_line_reads_the_same_settings() -> None:
    made = node(
        inner_steps=24, learning_rate=1e-3, share_model=False, trace=True, labels="-x, y", task="classification"
    )
    assert made.command[:2] == ["deca-node", "start"]
    loaded = read_back(made.command[2:])
    assert (loaded.run, loaded.node) == (made.settings.run, made.settings.node)
    assert (loaded.run.inner_steps, loaded.node.share_model, loaded.run.labels) == (24, False, "-x, y")


def test_a_node_that_joins_takes_the_run_from_a_member(tmp_path: Path) -> None:
    joining = {"model": None, "peers": None, "name": "east", "join": "127.0.0.1:7001, 127.0.0.1:7002", "dir": tmp_path}
    made = node(**joining, listen="127.0.0.1:7003", threads=2)
    assert made.command[:4] == ["deca-node", "join", "127.0.0.1:7001", "127.0.0.1:7002"]
    assert "--join" not in made.command
    loaded = read_back(made.command[4:])
    assert (loaded.node.listen, loaded.node.threads, loaded.node.data) == ("127.0.0.1:7003", 2, "d.jsonl")
    (tmp_path / "run.toml").write_text("rounds = 9\n")
    assert made.settings.run.rounds == 9, "as the member gave it"


def test_with_a_model_join_names_members_to_call_first() -> None:
    made = node(join="127.0.0.1:7001")
    assert made.command[:2] == ["deca-node", "start"]
    assert "--join" in made.command


@pytest.mark.parametrize(("value", "count"), [(True, 1), (1, 1), (2, 2), (False, 0)])
def test_insecure_once_and_twice(value: Any, count: int) -> None:
    made = node(insecure=value)
    assert made.command.count("--insecure") == count
    assert made.settings.node.insecure == count


def test_files_and_variables_rank_below_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text("rounds = 7\ninner_steps = 9\nseed = 1\n")
    monkeypatch.setenv("DECA_INNER_STEPS", "11")
    run = node(seed=3).settings.run
    assert (run.rounds, run.inner_steps, run.seed) == (7, 11, 3)
    (tmp_path / "other.toml").write_text("rounds = 8\n")
    made = node(run="other.toml")
    assert made.settings.run.rounds == 8
    assert made.command[2:4] == ["--run", "other.toml"]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(SettingsError, match="there is no setting 'inner_step'; did you mean 'inner_steps'"):
        node(inner_step=3)


def test_a_wrong_value_is_refused_before_anything_starts() -> None:
    with pytest.raises(SettingsError, match="rounds = 0 is below its smallest value, 1"):
        node(rounds=0)
    with pytest.raises(SettingsError, match="must be a whole number"):
        node(rounds=2.5)


def test_peers_as_a_list_become_a_private_file(tmp_path: Path) -> None:
    made = node(dir=tmp_path / "out")
    made._given.write_files()
    assert (tmp_path / "out" / "peers.txt").read_text() == "".join(f"{peer}\n" for peer in PEERS)
    assert made.settings.node.peers == str(tmp_path / "out" / "peers.txt")


def test_a_list_of_peers_needs_a_name() -> None:
    with pytest.raises(SettingsError, match="peers is a list"):
        deca_node.Node("m", "d.jsonl", PEERS, insecure=True)


def test_a_peers_file_says_the_name_itself(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("north@127.0.0.1:7001\n")
    made = deca_node.Node("m", "d.jsonl", "p.txt", insecure=True)
    assert (made.name, made.directory) == ("north", Path("deca-data/north"))


def test_no_peers_is_a_node_alone_on_this_machine() -> None:
    made = deca_node.Node("m", "d.jsonl", [])
    assert (made.name, made.settings.node.insecure) == ("node", 1)
    (line,) = made._given.files["peers.txt"].decode().splitlines()
    assert line.startswith("node@127.0.0.1:")


def test_records_become_a_private_file(tmp_path: Path) -> None:
    records = [{"text": "a\nb"}, {"prompt": "über", "completion": "x"}]
    made = node(data=iter(records), dir=tmp_path / "out")
    made._given.write_files()
    path = tmp_path / "out" / "data.jsonl"
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == records
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.settings.node.data == str(path)


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        (["text"], "record 1 of data is str, and not a mapping"),
        ([{"text": "a"}, {"text": b"b"}], "record 2 of data cannot be written as JSON"),
    ],
)
def test_records_that_are_none(records: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        node(data=records)
