"""The runner of checks: every part runs, and the summary names each with its outcome."""

import sys
import tomllib
from pathlib import Path

import pytest

from tools import run_checks

PASSES = f"{sys.executable} -c 'print(1)'"
FAILS = f"{sys.executable} -c 'raise SystemExit(3)'"


def test_all_parts_run_also_after_one_that_failed(capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = run_checks.run_all({"one": FAILS, "two": PASSES, "three": "no-such-program --at-all"})
    assert [(each.part, each.code) for each in outcomes] == [("one", 3), ("two", 0), ("three", 127)]
    assert f"-- two: {PASSES}\n1\n" in capfd.readouterr().out


def test_the_summary_names_every_part_and_those_that_failed_again() -> None:
    outcomes = [run_checks.Outcome("lint", 0, 2.2), run_checks.Outcome("types", 1, 30.0)]
    assert run_checks.summary(outcomes).splitlines() == [
        "",
        "-- summary",
        "  lint         passed                  2 s",
        "  types        failed (exit 1)        30 s",
        "-- failed: types",
    ]
    assert run_checks.summary(outcomes[:1]).endswith("-- all parts passed")


def test_the_summary_gives_the_reason_of_a_part_that_is_left_out() -> None:
    said = run_checks.summary([run_checks.Outcome("e2e", 0, 1.0)], {"image": "no container engine answers"})
    assert said.splitlines()[-2:] == ["  image        left out: no container engine answers", "-- all parts passed"]


DOCKER = """#!/bin/sh
case "$1" in
  version) exit {version} ;;
  image) test "$5" = deca-node:image-test && echo {layers} && exit {image} ;;
esac
"""


@pytest.mark.parametrize(
    ("version", "image", "layers", "reason"),
    [
        (1, 0, "", "no container engine answers"),
        (0, 1, "", "has not built the image"),
        (0, 0, "others", "the image has other dependencies"),
        (0, 0, run_checks.sum_of_layers(), ""),
    ],
)
def test_containers_run_where_an_engine_has_the_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int, image: int, layers: str, reason: str
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "docker").write_text(DOCKER.format(version=version, image=image, layers=layers))
    (tmp_path / "docker").chmod(0o755)
    ran: list[str] = []
    monkeypatch.setattr(run_checks, "run_all", lambda parts: ran.extend(parts) or [])
    monkeypatch.setattr(sys, "argv", ["run_checks.py", "test"])
    assert run_checks.main() == 0
    assert ("image" in ran) is not bool(reason)
    assert reason in run_checks.no_image()


def test_no_engine_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_checks.no_image() == "no container engine is installed"


@pytest.mark.parametrize(("command", "code"), [(PASSES, 0), (FAILS, 1)])
def test_the_exit_code_tells_whether_a_part_failed(monkeypatch: pytest.MonkeyPatch, command: str, code: int) -> None:
    monkeypatch.setattr(run_checks, "GROUPS", {"check": {"some": command}})
    monkeypatch.setattr(sys, "argv", ["run_checks.py", "check"])
    assert run_checks.main() == code


def test_every_folder_of_tests_belongs_to_exactly_one_part() -> None:
    """The other parts name what the unit tests leave out. All parts leave out the same slow tests."""
    ignored = run_checks.UNIT_TESTS.replace("--ignore ", "").split()
    elsewhere = f"{run_checks.CHECKS['house']} {run_checks.TESTS['e2e']}".split()
    assert set(ignored) == {word for word in elsewhere if word.startswith("tests/")}
    assert all('"not slow"' in part for part in run_checks.GROUPS["test"].values() if part.startswith("pytest"))
    project = tomllib.loads((run_checks.ROOT / "pyproject.toml").read_text())
    assert project["tool"]["pytest"]["ini_options"]["testpaths"] == ["tests"]
