"""The names of the package ``deca_node``: all there, typed, documented, and cheap until they are used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import deca_node

ROOT = Path(__file__).resolve().parents[2]


def test_every_name_is_there_and_in_the_stub_and_in_the_page() -> None:
    stub = (ROOT / "deca_node" / "__init__.pyi").read_text()
    page = (ROOT / "docs" / "PYTHON.md").read_text()
    assert set(re.findall(r"as (\w+)$", stub, re.MULTILINE)) | {"__version__"} == set(deca_node.__all__)
    for name in deca_node.__all__:
        assert getattr(deca_node, name)
        assert name == "__version__" or f"deca_node.{name}" in page, f"docs/PYTHON.md says nothing of {name}"
    assert dir(deca_node) == sorted(deca_node.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        deca_node.train  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import deca_node; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"deca_node"}
    assert not [name for name in done.stdout.split() if name.startswith("deca_node.")]
