"""Completion as a shell asks for it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.cli.verb_table import COMMANDS

Deca = Callable[..., Any]
PROGRAM = str(Path(sys.executable).with_name("deca-node"))
ASK = """
eval "$(deca-node completion bash)"
COMP_WORDS=(deca-node $1); COMP_CWORD=$2
_deca_node_completion deca-node
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(words: str, at: int) -> list[str]:
    """What bash would offer for the word at this place."""
    environment = {"PATH": f"{Path(PROGRAM).parent}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", words, str(at)], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_bash_completes_verbs_flags_and_choices() -> None:
    assert complete("sta", 1) == ["start", "status"]
    assert complete("start --learn", 2) == ["--learning-rate"]
    assert complete("completion ", 2) == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_every_shell(deca: Deca, shell: str) -> None:
    outcome = deca("completion", shell)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"_DECA_NODE_COMPLETE={shell}_complete" in outcome.out


def test_another_shell_is_refused(deca: Deca) -> None:
    outcome = deca("completion", "tcsh")
    assert (outcome.code, "'tcsh' is not one of" in outcome.err) == (2, True)
    assert "completion" in COMMANDS
