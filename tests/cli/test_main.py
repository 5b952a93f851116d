"""The frame: verbs are listed without being imported, and every error ends as a sentence and an exit code."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from deca_node import __version__
from deca_node.cli import main as frame
from deca_node.protocol import errors

Deca = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
ADMIN_VERBS = ("status", "members", "events", "pause", "resume", "checkpoint", "stop", "leave")
OWN_VERBS = ("start", "doctor", "config", "version", "export", "report", *ADMIN_VERBS)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A verb ``fail`` that raises whatever the list holds."""
    from deca_node.cli.invocation import debug_option

    raised: list[BaseException] = []

    @click.command()
    @debug_option
    def fail() -> None:
        raise raised[0]

    monkeypatch.setattr(frame, "fail", fail, raising=False)
    monkeypatch.setitem(frame.COMMANDS, "fail", ("deca_node.cli.main:fail", "Fail."))
    return raised


def test_help_lists_all_verbs_with_examples() -> None:
    result = CliRunner().invoke(frame.cli, ["--help"])
    assert result.exit_code == 0
    for name, (_, sentence) in frame.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(sentence)}$", result.output, re.MULTILINE)
    assert "Examples:\n    deca-node demo\n" in result.output


@pytest.mark.parametrize("name", OWN_VERBS)
def test_every_verb_shows_examples(name: str) -> None:
    result = CliRunner().invoke(frame.cli, [name, "-h"])
    assert result.exit_code == 0
    assert re.search(rf"Examples:\n(.*\n)*? +.*deca-node {name}", result.output)


def test_help_imports_nothing_heavy() -> None:
    """Not even that of the verbs; and the first page not even the verbs themselves."""
    code = (
        "import sys\n"
        "from deca_node.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "print('FIRST', *sys.modules)\n"
        f"for verb in {OWN_VERBS}: assert main([verb, '--help']) == 0\n"
        "print('LATER', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    first, later = (set(line.split()) for line in done.stdout.splitlines() if line.startswith(("FIRST", "LATER")))
    assert first & {"deca_node.daemon", "deca_node.cli.start", "asyncio", "rich"} == set()
    assert later & {"torch", "transformers", "grpc", "google.protobuf", "pydantic", "plotly", "numpy", "rich"} == set()


def test_versions(deca: Deca) -> None:
    assert deca("--version").out == f"deca-node, version {__version__}\n"
    assert f'"deca-node": "{__version__}"' in deca("version", "--json").out
    assert re.search(r"^torch +\d", deca("version").out, re.MULTILINE)


def test_a_package_that_is_not_installed_is_said_to_be_so(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deca_node.cli.version.PACKAGES", ("no-such-package",))
    assert re.search(r"^no-such-package +not installed$", deca("version").out, re.MULTILINE)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.DataError("there is no data at x"), 6, "error: there is no data at x\n"),
        (
            ZeroDivisionError("division by zero"),
            70,
            "internal error: ZeroDivisionError: division by zero (run again with --debug to see where)\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_end_as_a_sentence_and_a_code(
    deca: Deca, verb: list[BaseException], error: BaseException, code: int, said: str
) -> None:
    verb.append(error)
    outcome = deca("fail")
    assert (outcome.code, outcome.out, outcome.err.lstrip("\n")) == (code, "", said)


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
@pytest.mark.parametrize(("error", "code"), [(errors.DataError("no data"), 6), (KeyError("x"), 70)])
def test_debug_shows_the_traceback(
    deca: Deca, verb: list[BaseException], arguments: list[str], error: Exception, code: int
) -> None:
    verb.append(error)
    outcome = deca(*arguments)
    assert outcome.code == code
    assert outcome.err.startswith("Traceback")
    assert "run again" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["strat"], "No such command 'strat'."),
        (["start", "--ronds", "4"], "No such option"),
        (["start", "--rounds"], "Option '--rounds' requires an argument."),
    ],
)
def test_usage_errors_exit_2(deca: Deca, arguments: list[str], said: str) -> None:
    outcome = deca(*arguments)
    assert outcome.code == 2
    assert said in outcome.err


def test_the_page_of_exit_codes_lists_every_class() -> None:
    page = (ROOT / "docs" / "EXIT_CODES.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? *\|", page, re.MULTILINE)
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    own = [error for error in classes if issubclass(error, errors.DecaError) and "exit_code" in vars(error)]
    expected = {(error.exit_code, error.__name__) for error in own}
    expected |= {(0, ""), (2, ""), (frame.EXIT_INTERNAL, ""), (frame.EXIT_INTERRUPTED, "")}
    assert sorted((int(code), name) for code, name in rows) == sorted(expected)
    assert len({code for code, _ in rows}) == len(rows)
