"""Facts in a pipe stand on one line each; COLUMNS sets another width."""

import pytest

from deca_node.cli.views.console import facts_console

LONG = "word " * 60


def test_a_long_fact_is_not_wrapped_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    facts_console().print(LONG)
    assert capsys.readouterr().out == f"{LONG}\n"


def test_columns_counts_in_a_pipe_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    facts_console().print(LONG)
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80
