"""Reasons for refusals: one table that holds every code that is raised, and that the documents explain."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.protocol.refusals import OTHER, REASONS, SILENT

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deca_node"
CODE = re.compile(r"[a-z]{2,}(-[a-z]+)*")


def raised() -> Iterator[tuple[str, str]]:
    """Every code with which a WireError is made, and the file."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "WireError" and node.args:
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and CODE.fullmatch(part.value):
                        yield part.value, str(file.relative_to(ROOT))


def test_every_refusal_has_its_row() -> None:
    """Every code that is raised has a row, and every row is raised."""
    found = list(raised())
    assert [(code, file) for code, file in found if code not in REASONS] == []
    assert REASONS.keys() - {code for code, _ in found} == set()


@pytest.mark.parametrize("page", ["docs/PROTOCOL.md", "docs/TROUBLESHOOTING.md"])
def test_every_reason_is_documented(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    told = REASONS.keys() - SILENT - {"self"} if page.endswith("TROUBLESHOOTING.md") else REASONS.keys()
    assert [code for code in [*told, OTHER] if f"`{code}`" not in text] == []


def test_every_attempt_is_a_test() -> None:
    """Every test that docs/ATTEMPTS.md names exists."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "ATTEMPTS.md").read_text(encoding="utf-8")))
    there = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests").rglob("test_*.py")))
    assert len(named) > 8
    assert [name for name in sorted(named) if f"def {name}(" not in there] == []


def test_nothing_is_evaluated() -> None:
    """Text never becomes code, and code of a model is never run."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") not in ("eval", "exec", "compile", "__import__"), file
                for keyword in node.keywords:
                    trusted = keyword.arg == "trust_remote_code" and getattr(keyword.value, "value", True)
                    assert not trusted, file
