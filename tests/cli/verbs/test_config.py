"""``config``: every value with its source, templates that load, and a reference page that is up to date."""

import json
import re
import runpy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.cli.reference import allowed, template, value_text
from deca_node.daemon.settings.sources import FILES, SettingsKind, load_settings, setting_names
from deca_node.protocol.agreed.run import RunSettings

Deca = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]
TOOL = runpy.run_path(str(ROOT / "tools" / "write_configuration_reference.py"))


def test_every_source_is_shown(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run.toml").write_text("inner_steps = 12\n")
    monkeypatch.setenv("DECA_DEVICE", "cpu")
    monkeypatch.setenv("COLUMNS", "100")
    page = deca("config", "--show", "--rounds", "2").out
    for row in (
        "rounds 2 --rounds",
        "inner_steps 12 steps run.toml:inner_steps",
        'device "cpu" DECA_DEVICE',
        'codec "int8" default',
    ):
        assert re.search(r"[ │|]+".join(re.escape(cell) for cell in row.split()), page), row


def test_json_for_machines(deca: Deca) -> None:
    Path("other.toml").write_text("wait_seconds = 5\n")
    shown = json.loads(deca("config", "--json", "--config", "other.toml").out)
    assert {name: list(settings) for name, settings in shown.items()} == {
        "run": setting_names(RunSettings),
        "node": setting_names(next(kind for kind in FILES if kind is not RunSettings)),
    }
    assert shown["node"]["wait_seconds"] == {"value": 5.0, "unit": "seconds", "where": "other.toml:wait_seconds"}


def test_files_may_be_named_in_the_environment(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.toml").write_text("rounds = 9\n")
    monkeypatch.setenv("DECA_RUN_FILE", "other.toml")
    assert json.loads(deca("config", "--json").out)["run"]["rounds"]["where"] == "other.toml:rounds"


def test_a_template_stands_alone(deca: Deca) -> None:
    outcome = deca("config", "--template", "run", "--show")
    assert outcome.code == 2
    assert "--template does not go together with --show or --json; leave them out" in outcome.err


@pytest.mark.parametrize("kind", list(FILES))
def test_templates_are_the_defaults(deca: Deca, kind: SettingsKind) -> None:
    """As printed, nothing is set; with every line uncommented, everything is set to its default."""
    text = deca("config", "--template", FILES[kind].removesuffix(".toml")).out
    assert text == template(kind)
    assert tomllib.loads(text) == {}
    Path("all.toml").write_text(re.sub(r"^#(?=\w)", "", text, flags=re.MULTILINE))
    run, node = (Path("all.toml"), None) if kind is RunSettings else (None, Path("all.toml"))
    loaded = load_settings({}, {}, run, node)
    assert kind() in (loaded.run, loaded.node)
    assert {loaded.sources[name].where for name in setting_names(kind)} == {
        f"all.toml:{name}" for name in setting_names(kind)
    }


def test_values_are_spelled_as_in_toml() -> None:
    for value in ("a \"quoted\" 'text'\n", 48, 5e-5, 1e-30, True):
        assert tomllib.loads(f"x = {value_text(value)}") == {"x": value}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run_name", "text"),
        ("rounds", "a whole number from 1"),
        ("lr_warmup", "a number from 0 to 0.9"),
        ("task", "causal-lm or classification"),
        ("h_into", "both, m or v"),
    ],
)
def test_limits_in_words(name: str, words: str) -> None:
    assert allowed(RunSettings.__dataclass_fields__[name]) == words


def test_the_reference_page_is_fresh() -> None:
    assert TOOL["main"](["--check"]) == 0


def test_a_stale_page_is_found_and_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = TOOL["main"]
    monkeypatch.setitem(main.__globals__, "ROOT", tmp_path)
    monkeypatch.setitem(main.__globals__, "PAGE", tmp_path / "CONFIGURATION.md")
    assert main(["--check"]) == 1
    assert "CONFIGURATION.md is stale" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert "| `rounds` | `4` |  | a whole number from 1 |" in (tmp_path / "CONFIGURATION.md").read_text()


def test_no_name_is_broken_at_80_columns(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = deca("config").out.split()
    for kind in FILES:
        assert set(setting_names(kind)) <= set(words)
