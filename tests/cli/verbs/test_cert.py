"""``cert``: two parties from nothing to certificates that a start accepts, with the commands alone."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deca_node.cli import main as frame
from deca_node.cli.verbs.cert import cert

Deca = Callable[..., Any]
FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def _verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(frame.COMMANDS, "cert", ("deca_node.cli.verbs.cert:cert", "Make and check certificates."))


ROOT = Path(__file__).resolve().parents[3]


def steps_of_the_readme() -> list[tuple[str, list[str], list[str] | None]]:
    """Who types what, from the README's block; its last line, ``start``, is left out."""
    block = next(block for block in (ROOT / "README.md").read_text().split("```\n") if block.startswith("north "))
    lines = [(line.split()[0], line.split()[2:]) for line in block.splitlines()]
    assert [arguments[0] for _, arguments in lines] == ["cert"] * 4 + ["start"]
    named = [(name, line) for who, line in lines[:-1] for name in (("north", "south") if who == "both" else (who,))]
    return [(name, [word.replace("NAME", name) for word in line], None) for name, line in named]


def steps_of_the_page() -> list[tuple[str, list[str], list[str] | None]]:
    """Who types what, and what is printed, from docs/TWO_PARTIES.md."""
    page = (ROOT / "docs" / "TWO_PARTIES.md").read_text()
    found = re.findall(r"^(north|south)\$ deca-node (cert .*)\n((?:(?!```).+\n)*)", page, re.MULTILINE)
    assert len(found) == 6
    return [(who, line.split(), printed.splitlines()) for who, line, printed in found]


def without_what_differs(text: str) -> str:
    """The text without dates and fingerprints."""
    return re.sub(r"sha256:\S+", "SUM", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DATE", text))


@pytest.mark.parametrize("steps", [steps_of_the_readme(), steps_of_the_page()], ids=["README", "TWO_PARTIES"])
def test_two_parties(
    deca: Deca,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[str, list[str], list[str] | None]],
) -> None:
    """The documents' lines and nothing else, each party in a folder of its own; what travels is copied between them."""
    told = ""
    for name, arguments, printed in steps:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        done = deca(*(re.sub(r"sha256:\S+", told, word) for word in arguments))
        assert (done.code, done.err) == (0, "")
        if printed is not None:
            assert without_what_differs(done.out).splitlines() == [without_what_differs(line) for line in printed]
        told = next(iter(FINGERPRINT.findall(done.out)), told)
        if arguments[1:3] == ["request", "south"]:
            shutil.copy(tmp_path / "south/deca-certs/south.csr", tmp_path / "north")
        if arguments[1] == "approve":
            shutil.move(tmp_path / "north/south.crt", tmp_path / "south")
    for name in ("north", "south"):
        monkeypatch.chdir(tmp_path / name)
        assert (
            deca("cert", "check").out
            == f"spiffe://wards.example/node/{name}: all checks passed, valid for 89 more days\n"
        )


def begin(deca: Deca) -> str:
    """The authority, in north's hands; returns the fingerprint that is told."""
    made = deca("cert", "init", "--federation", "wards.example")
    assert made.code == 0, made.err
    return str(FINGERPRINT.findall(made.out)[0])


def ask(deca: Deca, name: str, folder: str) -> Path:
    asked = deca("cert", "request", name, "--federation", "wards.example", "--dir", folder)
    assert f"Send {folder}/{name}.csr to the keeper of the authority. The key stays here." in asked.out
    # What travels is a copy.
    return Path(shutil.copy(Path(folder, f"{name}.csr"), f"{name}.csr"))


@pytest.fixture
def south(deca: Deca) -> Path:
    """South's folder, all four steps done."""
    told = begin(deca)
    ask(deca, "south", "deca-certs")
    assert deca("cert", "approve", "south.csr").code == 0
    assert deca("cert", "install", "south.crt", "--fingerprint", told).code == 0
    return Path("deca-certs")


def test_a_wrong_fingerprint_installs_nothing(deca: Deca) -> None:
    begin(deca)
    ask(deca, "south", "deca-certs")
    deca("cert", "approve", "south.csr")
    refused = deca("cert", "install", "south.crt", "--fingerprint", "sha256:" + "0" * 64)
    assert refused.code == 3
    assert "the file may have been replaced on its way" in refused.err
    assert not Path("deca-certs", "south.crt").exists()


def test_another_key_for_a_name_must_be_asked_for(deca: Deca, south: Path) -> None:
    ask(deca, "south", "somebody-elses")
    refused = deca("cert", "approve", "south.csr")
    assert (refused.code, "make sure that south.csr is from south, and give --replace" in refused.err) == (3, True)
    assert deca("cert", "approve", "south.csr", "--replace").code == 0


def test_show(deca: Deca, south: Path) -> None:
    facts = json.loads(deca("cert", "show", "--json").out)
    assert facts["uri"] == "spiffe://wards.example/node/south"
    assert facts["dns"] == "south.node.wards.example.deca.internal"
    assert FINGERPRINT.fullmatch(facts["fingerprint"])
    lines = deca("cert", "show", "--cert", str(south / "south.crt")).out
    assert re.search(r"^federation +wards\.example$", lines, re.MULTILINE)


def test_check_says_what_a_start_would(deca: Deca, south: Path) -> None:
    (south / "south.key").chmod(0o644)
    found = deca("cert", "check", "south")
    assert found.code == 3
    assert "can be read by other users (mode 0644); make it private: chmod 600" in found.err


def test_check_warns_in_time(deca: Deca, south: Path) -> None:
    told = FINGERPRINT.findall(deca("cert", "approve", "south.csr", "--days", "10").out)[0]
    deca("cert", "install", "south.crt", "--fingerprint", told)
    found = deca("cert", "check")
    assert (found.code, found.out) == (3, "")
    assert found.err.startswith("warning: deca-certs/south.crt expires on")


def test_files_of_another_authority_may_be_named(deca: Deca, south: Path) -> None:
    for name, suffix in (("south.crt", "crt"), ("south.key", "key")):
        (south / name).rename(f"tls.{suffix}")
    assert deca("cert", "check", "--cert", "tls.crt", "--key", "tls.key").code == 0


def test_which_node_must_be_clear(deca: Deca) -> None:
    none = deca("cert", "check")
    assert (none.code, "the node is not clear; give its NAME or --cert; deca-certs has none" in none.err) == (2, True)


def test_the_next_authority_is_trusted_besides(deca: Deca, south: Path) -> None:
    made = deca("cert", "init", "--federation", "wards.example", "--authority", "next")
    told = FINGERPRINT.findall(made.out)[0]
    assert deca("cert", "trust", "next/ca.crt", "--fingerprint", told).code == 0
    assert (south / "ca.crt").read_text().count("BEGIN CERTIFICATE") == 2
    assert deca("cert", "check").code == 0


@pytest.mark.parametrize("name", list(cert.commands))
def test_every_step_shows_an_example(name: str) -> None:
    result = CliRunner().invoke(cert, [name, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +deca-node cert {name}", result.output)
