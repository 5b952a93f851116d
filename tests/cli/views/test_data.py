"""Records as lines of tokens, with colour or brackets."""

import io

import pytest
from rich.console import Console

from deca_node.cli.views import data as view
from deca_node.cli.views.data import print_shown, readable
from deca_node.numerics.forecast.surveyed import Shown

RECORD = Shown("a.jsonl line 1", "chat", 5, ("user", "\n", "Hi", "\x1b[2J", "!\n"), (False, False, False, True, True))


def test_learnt_tokens_stand_in_brackets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    print_shown([RECORD])
    assert capsys.readouterr().out.splitlines() == [
        "record 1: a.jsonl line 1 (chat), 5 tokens, 2 learnt",
        "  user·\\n",
        "  Hi·⟦�[2J·!\\n⟧",
        "",
    ]


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_has_colours_instead(monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, no_color=not colour, color_system="standard", highlight=False)
    monkeypatch.setattr(view, "facts_console", lambda: console)
    print_shown([RECORD])
    assert ("⟦" in out.getvalue()) != colour
    assert ("\x1b[1;32m�[2J" in out.getvalue()) == colour


def test_line_ends_are_spelled_out() -> None:
    assert readable("a\tb\r\n") == "a\\tb\\r\\n"
