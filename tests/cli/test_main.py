"""The frame: verbs are listed without being imported, and every error ends as a sentence and an exit code."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from deca_node import __version__
from deca_node.cli import main as frame
from deca_node.protocol import errors
from tests.cli.test_variables import commands

Deca = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
WRITING = {"lend", "init", "start", "join", "demo", "completion", "cert", "report"}
"""Verbs that run something, or write a file that somebody asked for: they print no facts."""
READING = [*(verb for verb in frame.COMMANDS if verb not in WRITING), "cert show", "cert check"]
ADMIN_VERBS = ("status", "members", "events", "pause", "resume", "checkpoint", "stop", "leave")
OWN_VERBS = ("init", "start", "doctor", "config", "version", "export", "report", *ADMIN_VERBS)


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


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_verb_shows_examples(name: str) -> None:
    result = CliRunner().invoke(frame.cli, [*name.split(), "-h"])
    assert result.exit_code == 0
    assert re.search(rf"Examples?\b.*:\n(.*\n)*? +.*deca-node {name}", result.output)


@pytest.mark.parametrize("name", READING)
def test_every_verb_that_reads_prints_json(name: str) -> None:
    assert "--json" in CliRunner().invoke(frame.cli, [*name.split(), "-h"]).output
    page = (ROOT / "docs" / "CLI.md").read_text()
    assert re.search(rf"^\| .*`{name}`.* \| .+ \|$", page, re.MULTILINE), "its document is described there"


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
    assert first & {"deca_node.daemon", "deca_node.cli.verbs.start", "asyncio", "rich"} == set()
    assert later & {"torch", "transformers", "grpc", "google.protobuf", "pydantic", "plotly", "numpy", "rich"} == set()


def test_versions(deca: Deca) -> None:
    assert deca("--version").out == f"deca-node, version {__version__}\n"
    assert f'"deca-node": "{__version__}"' in deca("version", "--json").out
    assert re.search(r"^torch +\d", deca("version").out, re.MULTILINE)


def test_a_package_that_is_not_installed_is_said_to_be_so(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deca_node.cli.verbs.version.PACKAGES", ("no-such-package",))
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


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.EACCES, 3, "error: cannot use certs/north.crt: Permission denied; this process runs as user "),
        (errno.ENAMETOOLONG, 3, "error: cannot use certs/north.crt: File name too long; "),
        (errno.EROFS, 10, "error: cannot write certs/north.crt: Read-only file system; make room, or name a folder"),
        (errno.EBADF, 70, "internal error: OSError: "),
    ],
)
def test_a_path_that_the_system_refuses_is_a_sentence(
    deca: Deca, verb: list[BaseException], number: int, code: int, said: str
) -> None:
    verb.append(OSError(number, os.strerror(number), "certs/north.crt"))
    outcome = deca("fail")
    assert outcome.code == code
    assert outcome.err.startswith(said)


WITHOUT_ROOTS_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
"""Before a command of root: the system then refuses it what it refuses any user."""


@pytest.mark.parametrize(
    "arguments",
    [
        (
            "start",
            "--insecure",
            "--peers",
            "peers.txt",
            "--name",
            "north",
            "--data",
            "n.txt",
            "--model",
            "closed/model",
        ),
        ("start", "--peers", "peers.txt", "--name", "north", "--data", "n.txt", "--model", "model"),
        ("doctor", "--peers", "peers.txt", "--name", "north", "--data", "n.txt", "--model", "model"),
        ("plan", "--model", "closed/model"),
    ],
)
def test_a_folder_that_this_user_may_not_enter_is_no_internal_error(arguments: tuple[str, ...]) -> None:
    """A mounted folder of certificates often belongs to another user."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        for name in ("closed/model", "deca-certs", "model"):
            (folder / name).mkdir(parents=True)
        (folder / "peers.txt").write_text("north@127.0.0.1:7001\nsouth@127.0.0.1:7002\n")
        (folder / "n.txt").write_text("a b c\n")
        closed = [folder / name for name in ("closed", "deca-certs")]
        for path in closed:
            path.chmod(0)
        demoted = WITHOUT_ROOTS_RIGHTS if os.geteuid() == 0 else []
        command = [*demoted, sys.executable, "-m", "deca_node", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        for path in closed:
            path.chmod(0o700)
    assert done.returncode in range(3, 8), done
    assert "Permission denied" in done.stderr + done.stdout


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


def own_errors() -> dict[str, str]:
    """Every class below DecaError in the package, and the exit code that it sets itself, if any; read, not imported."""
    text = "\n".join(file.read_text() for file in (ROOT / "deca_node").rglob("*.py"))
    found = re.findall(r"^class (\w+)\((\w*Error|Exception)\):((?:\n    .*|\n(?=\n))*)", text, re.MULTILINE)
    known, before = {"DecaError"}, 0
    while len(known) > before:
        before = len(known)
        known |= {name for name, base, _ in found if base in known}
    bodies = {name: body for name, _, body in found}
    return {name: "".join(re.findall(r"^    exit_code = (\d+)$", bodies[name], re.MULTILINE)) for name in known}


def test_the_page_of_exit_codes_lists_every_class() -> None:
    page = (ROOT / "docs" / "EXIT_CODES.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? *\|", page, re.MULTILINE)
    found = own_errors()
    expected = {(code, name) for name, code in found.items() if code}
    expected |= {(str(code), "") for code in (0, 2, frame.EXIT_INTERNAL, frame.EXIT_INTERRUPTED)}
    assert sorted(rows) == sorted(expected)
    assert len({code for code, _ in rows}) == len(rows)
    assert {"CertificateError", "TransferError", "DamagedError"} <= {name for name, code in found.items() if not code}
