"""The flag ``--debug``, which every verb takes, and where its value is kept during one call of ``deca-node``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass
class Invocation:
    """The facts of one call. ``main`` makes this value before click parses, so it is still there after an exception."""

    debug: bool = False


def debug_option(function: Decorated) -> Decorated:
    """Add ``--debug``, which may stand before or after the verb."""
    option = click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        envvar="DECA_DEBUG",
        callback=_remember,
        help="Show the traceback of an error.",
    )
    return option(function)


def _remember(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Invocation).debug |= value
