"""The check of a release: Pythons that are missing are named, and each step that fails is told."""

import sys
from pathlib import Path

import pytest

from tools import check_release


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(check_release, "DIST", tmp_path)
    for name in ("deca_node-0.1.0-cp311-abi3-any.whl", "deca_node-0.1.0.tar.gz"):
        (tmp_path / name).touch()
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["check_release.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        check_release.main()
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("dist")
def test_a_python_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "python3.999") == 1
    assert "python3.999" in capsys.readouterr().out.splitlines()[-1]


def test_without_a_build_the_next_step_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_release, "DIST", tmp_path)
    monkeypatch.setattr(sys, "argv", ["check_release.py"])
    with pytest.raises(SystemExit, match="run make release first"):
        check_release.main()


@pytest.mark.usefixtures("dist")
@pytest.mark.parametrize(
    ("compiled", "demo", "said"),
    [
        ([True, False], True, "ok"),
        ([False], True, "the wheel's compiled codecs are not used"),
        ([True], False, "deca-node demo failed with compiled codecs"),
        ([True, True], True, "the source distribution has compiled codecs, though there was no compiler"),
    ],
)
def test_every_step_is_looked_at(
    compiled: list[bool],
    demo: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = iter(compiled)
    monkeypatch.setattr(check_release.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 0}))
    monkeypatch.setattr(check_release.Environment, "compiled", lambda _: next(answers))
    monkeypatch.setattr(check_release.Environment, "demo", lambda *_: demo)
    assert run(monkeypatch, sys.executable) == (said != "ok")
    assert capsys.readouterr().out.splitlines()[-1].endswith(said)
