"""How gRPC says that a call or a stream is over: its errors, its mark for an orderly end, and its long sentences.

Everything that reads gRPC's errors uses this module, so that its peculiarities are known in one place.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio

BROKEN = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""The errors of a call that does not end well. The last one comes from asyncio: gRPC raises it for a call that is over
already."""

END: Any = getattr(grpc.aio, "EOF")  # noqa: B009
"""What ``read`` returns at the end of a stream. The published type stubs lack it."""

LENGTH_MAX = 300


class StreamBrokenError(Exception):
    """A stream has ended without an orderly end. The message is one short line."""


def in_a_line(problem: BaseException) -> str:
    """An error as one short line: the other end's sentence or gRPC's, otherwise the error's type."""
    details = getattr(problem, "details", None)
    return short((details() if callable(details) else None) or _text_of(problem)) or type(problem).__name__


def short(text: str | None) -> str:
    """The part of gRPC's text that says most: the first line of the last error in it, cut to ``LENGTH_MAX``."""
    return ((text or "").rsplit("last error: ", 1)[-1].splitlines() or [""])[0][:LENGTH_MAX]


def _text_of(problem: BaseException) -> str:
    # The text of a gRPC error is many lines about the call; without its details the type says more.
    return "" if isinstance(problem, grpc.RpcError) else str(problem)
