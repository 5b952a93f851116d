"""A model that is small enough to train in seconds, private text for each node, and real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.testbed import Testbed, make_tiny_model

LONGEST = ("test_coming_late", "test_returning", "test_statefulset_life", "test_trust", "test_stops_early")
"""Their tests begin first, so that at the end no core waits for a long one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def testbed(tmp_path: Path, tiny_model: Path) -> Iterator[Testbed]:
    with Testbed(tmp_path, tiny_model) as bed:
        yield bed
