"""Compiled codecs for the tests that compare them with torch."""

import shutil

import pytest

from deca_node.numerics.codecs import native
from deca_node.numerics.codecs.table import Table
from deca_node.storage import compiled
from tests.numerics.codecs.compiled import COMPILER, NO_COMPILER, build


@pytest.fixture(scope="session", params=["", "-DVERSIONS="], ids=["version-per-processor", "plain-version"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library, built anew. If there is a compiler, the build must work."""
    if shutil.which(COMPILER) is None:
        pytest.skip(NO_COMPILER)
    done = build(tmp_path_factory.mktemp("native"), request.param)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def kernels(library: str) -> Table:
    return {(codec, "cpu"): found for codec, found in native.load(compiled.load(library)).items()}
