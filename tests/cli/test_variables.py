"""Every flag has a variable, no two share one, and a misspelt one is refused."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from deca_node.cli.variables import WITHOUT, name_variables, own_flags, variables_of, without_verbs_own
from deca_node.cli.verb_table import COMMANDS, look_up
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.sources import FILE_VARIABLES, variable_of
from deca_node.protocol.agreed.run import RunSettings

Deca = Callable[..., Any]
SHARED = {"DECA_DIR", "DECA_DEBUG", *FILE_VARIABLES}
"""Variables that mean the same to every verb; the first is a setting as well."""
SETTINGS = {variable_of(f.name) for kind in (RunSettings, NodeSettings) for f in dataclasses.fields(kind)}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every verb there is, by how it is called."""
    for verb in COMMANDS:
        command = look_up(verb)
        assert command is not None
        yield verb, command
        yield from ((f"{verb} {name}", below) for name, below in getattr(command, "commands", {}).items())


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_flag_has_a_variable(name: str, command: click.Command) -> None:
    flags = [option for option in own_flags(command) if option.name not in WITHOUT]
    prefix = f"DECA_{name.upper().replace(' ', '_')}_"
    for option in flags:
        assert option.envvar in SHARED or str(option.envvar).startswith(prefix)
    assert flags or name == "cert"


def test_no_two_flags_share_a_variable() -> None:
    own = [name for verb in COMMANDS for name in variables_of(look_up(verb) or click.Command("")) if name not in SHARED]
    assert len(own) == len(set(own))
    assert SETTINGS.isdisjoint(own)


def test_a_verbs_flag_by_its_variable(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECA_CONFIG_JSON", "1")
    monkeypatch.setenv("DECA_ROUNDS", "7")
    outcome = deca("config")
    assert json.loads(outcome.out)["run"]["rounds"] == {"value": 7, "unit": "", "where": "DECA_ROUNDS"}
    monkeypatch.setenv("DECA_VERSION_JSON", "yes")
    assert json.loads(deca("version").out)["deca-node"]


def test_a_setting_that_begins_like_a_verb_hides_nothing(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    """``checkpoint`` is a verb with the flag --dir, and ``checkpoint_every`` and ``dir`` are settings."""
    monkeypatch.setenv("DECA_DIR", "/x")
    monkeypatch.setenv("DECA_CHECKPOINT_EVERY", "12")
    monkeypatch.setenv("DECA_CHECKPOINT_JSON", "1")
    node = json.loads(deca("config", "--json").out)["node"]
    assert {name: node[name]["value"] for name in ("dir", "checkpoint_every")} == {"dir": "/x", "checkpoint_every": 12}


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_settings_stay_beside_a_verbs_own_variables(verb: str) -> None:
    """Every setting by itself beside all variables of the verb, and the same with those that verbs share."""
    command = look_up(verb)
    assert command is not None
    own = dict.fromkeys(set(variables_of(command)) - SHARED, "1")
    for setting in SETTINGS:
        for given in ({setting: "2"}, dict.fromkeys({setting, *SHARED}, "2")):
            assert without_verbs_own(own | given, SETTINGS, COMMANDS, look_up) == given


def test_the_setting_wins_where_a_verbs_flag_has_its_variable() -> None:
    """No verb has such a flag today; if one did, the setting would keep its meaning."""
    command = click.Command("checkpoint", params=[click.Option(["--every"]), click.Option(["--last"])])
    named = name_variables(command, "checkpoint")
    given = {"DECA_CHECKPOINT_EVERY": "12", "DECA_CHECKPOINT_LAST": "1"}
    left = without_verbs_own(given, SETTINGS, ["checkpoint"], lambda _: named)
    assert left == {"DECA_CHECKPOINT_EVERY": "12"}


def test_a_misspelt_variable_is_refused(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECA_CONFIG_JSONS", "1")
    outcome = deca("config", "--show")
    assert (outcome.code, "DECA_CONFIG_JSONS" in outcome.err) == (3, True)


def test_variables_stand_in_the_help(deca: Deca) -> None:
    out = " ".join(deca("events", "--help").out.split())
    assert "[env var: DECA_EVENTS_LAST; default: 20; 0<=x<=1000]" in out
