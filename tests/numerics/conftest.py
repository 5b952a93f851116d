"""Compiled codecs for the tests that compare them with torch."""

import fcntl
import os
import shutil

import pytest

from deca_node.numerics.codecs import native
from deca_node.numerics.codecs.table import Table
from deca_node.storage import compiled
from tests.numerics.codecs.compiled import COMPILER, NO_COMPILER, build


@pytest.fixture(scope="session", params=["", "-DVERSIONS="], ids=["version-per-processor", "plain-version"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library, built anew, once for all workers of this run. If there is a compiler, the build must work."""
    if shutil.which(COMPILER) is None:
        pytest.skip(NO_COMPILER)
    of_this_run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        of_this_run = of_this_run.parent
    folder = of_this_run / f"native{request.param}"
    folder.mkdir(exist_ok=True)
    built = folder / "built"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            done = build(folder, request.param)
            assert done.returncode == 0, done.stderr
            built.write_text(done.stdout.strip())
    return built.read_text()


@pytest.fixture(scope="session")
def kernels(library: str) -> Table:
    return {(codec, "cpu"): found for codec, found in native.load(compiled.load(library)).items()}
