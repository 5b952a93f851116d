"""A model that is small enough to train in seconds, private text for each node, and real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.testbed import Testbed, make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def testbed(tmp_path: Path, tiny_model: Path) -> Iterator[Testbed]:
    with Testbed(tmp_path, tiny_model) as bed:
        yield bed
