"""The torch that set-up installs, with a pip that knows some builds only."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import setup_env

FAKE_PYTHON = """#!/bin/sh
case "$*" in
  "-c "*) echo "{present}" ;;
  *) echo "$*" | sed 's/.*--no-input //' >> "{log}"
     case "$*" in {unknown}) exit 1 ;; esac ;;
esac
"""
VERSION = setup_env.pinned_torch()
CPU = f"install --no-deps torch=={VERSION}+cpu"
DEFAULT = f"install --no-deps torch=={VERSION}"

Install = Callable[..., list[str]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Run ``install_torch`` with a pip that fails if its arguments match ``unknown``. Returns the arguments of pip."""
    python, log = tmp_path / "python", tmp_path / "log"
    monkeypatch.setattr(setup_env, "VENV_PYTHON", python)
    monkeypatch.setattr(setup_env, "has_cpu_builds", lambda: True)

    def run(build: str, *, unknown: str = "nothing", present: str = "") -> list[str]:
        log.write_text("")
        python.write_text(FAKE_PYTHON.format(present=present, log=log, unknown=unknown))
        python.chmod(0o755)
        setup_env.install_torch(build)
        return log.read_text().splitlines()

    return run


def test_the_cpu_build_is_taken_where_there_is_one(install: Install) -> None:
    assert install("auto") == [CPU]


def test_where_there_is_none_the_default_build_is_taken_after_saying_how_large_it_is(
    install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    assert install("auto", unknown="*+cpu") == [CPU, DEFAULT]
    told = capfd.readouterr().out
    assert "several GB" in told
    assert "PIP_EXTRA_INDEX_URL" in told
    assert "make TORCH=cpu" in told
    assert told.index("several GB") < told.index(f"installing torch {VERSION}\n")


def test_a_platform_without_cpu_builds_takes_the_default_build(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_env, "has_cpu_builds", lambda: False)
    assert install("auto") == [DEFAULT]


def test_the_cpu_build_asked_for_by_name_is_that_or_nothing(install: Install) -> None:
    assert install("cpu") == [CPU]
    with pytest.raises(SystemExit, match=r"Choose a build") as stopped:
        install("cpu", unknown="*+cpu")
    assert "PIP_EXTRA_INDEX_URL" in str(stopped.value)


def test_the_default_build_asked_for_by_name(install: Install) -> None:
    assert install("default") == [DEFAULT]
    with pytest.raises(SystemExit, match="could not install torch"):
        install("default", unknown="*torch*")


@pytest.mark.parametrize("build", ["auto", "cpu", "default"])
@pytest.mark.parametrize("present", [VERSION, f"{VERSION}+cpu", f"{VERSION}+cu130"])
def test_a_torch_that_is_there_stays(install: Install, build: str, present: str) -> None:
    assert install(build, present=present) == []


def test_another_version_of_torch_is_replaced(install: Install) -> None:
    assert install("auto", present="1.0.0+cpu") == [CPU]


def test_every_c_file_decides_whether_set_up_is_fresh() -> None:
    names = {file.name for file in setup_env.COMPILED}
    assert {"codec.c", "mixing.c", "groups.h", "versions.h", "checked_copy.c"} <= names


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What set-up installs beside torch, in an environment of its own."""
    done: list[str] = []
    for name, path in (("VENV", tmp_path), ("VENV_PYTHON", tmp_path / "python"), ("STAMP", tmp_path / "stamp")):
        monkeypatch.setattr(setup_env, name, path)
    monkeypatch.setattr(setup_env, "create_venv", (tmp_path / "python").touch)
    monkeypatch.setattr(setup_env, "install_torch", lambda build: None)
    monkeypatch.setattr(setup_env, "install", lambda *arguments: done.append(arguments[-1]))
    return done


def set_up(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["setup_env.py", *arguments])
    setup_env.main()


def test_the_demo_needs_no_tools_for_development(installed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "--for", "running")
    set_up(monkeypatch, "--for", "running")
    assert installed == [str(setup_env.ROOT)]
    set_up(monkeypatch)
    assert installed[1:] == [f"{setup_env.ROOT}[dev]"]
    set_up(monkeypatch, "--for", "running")
    assert len(installed) == 2, "an environment for development serves for running, too"


@pytest.mark.parametrize("target", ["demo", "testbed"])
def test_make_asks_for_no_more_than_that(target: str) -> None:
    makefile = (setup_env.ROOT / "Makefile").read_text()
    assert f"\n{target}: setup-to-run ##" in makefile
    assert "\nsetup-to-run:\n\t@$(PYTHON) tools/setup_env.py --torch $(TORCH) --for running\n" in makefile
