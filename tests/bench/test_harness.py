"""The common parts of all measurements."""

import os

import pytest

from bench.harness import own_cores


@pytest.mark.parametrize(
    ("cores", "nodes", "expected"),
    [
        ({0, 1}, 2, [{0}, {1}]),
        ({0, 1}, 1, [{0, 1}]),
        ({2, 3, 6}, 2, [{2}, {3, 6}]),
        ({0, 1}, 4, [{0}, {1}, {0}, {1}]),
    ],
)
def test_every_node_has_cores_of_its_own(
    cores: set[int], nodes: int, expected: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    assert [own_cores(node, nodes) for node in range(nodes)] == expected
