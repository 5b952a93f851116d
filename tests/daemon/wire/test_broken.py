"""Errors of gRPC as one short line."""

import asyncio

import grpc
import pytest

from deca_node.daemon.wire.broken import BROKEN, LENGTH_MAX, in_a_line, short


class Failed(grpc.RpcError):
    """A call that has failed, with these details."""

    def __init__(self, details: str | None) -> None:
        super().__init__("many lines about the call")
        self._details = details

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Failed("north serves 4 others"), "north serves 4 others"),
        (Failed("failed to connect; last error: UNKNOWN: Connection refused\nand more"), "UNKNOWN: Connection refused"),
        (Failed(""), "Failed"),
        (Failed(None), "Failed"),
        (ValueError("a sentence of ours"), "a sentence of ours"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_is_one_line(problem: Exception, line: str) -> None:
    assert in_a_line(problem) == line


def test_a_line_is_short() -> None:
    assert short("x" * 1000) == "x" * LENGTH_MAX
    assert short(None) == short("") == ""


def test_what_grpc_raises_for_a_call_that_is_over_counts_as_broken() -> None:
    assert issubclass(Failed, BROKEN) and issubclass(asyncio.InvalidStateError, BROKEN)
