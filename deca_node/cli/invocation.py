"""What one call of ``deca-node`` carries besides its command, and the option ``--debug`` that every command takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass
class Invocation:
    """Made by ``main`` before click parses, so that it outlives an exception in the command."""

    debug: bool = False


def debug_option(function: Decorated) -> Decorated:
    """``--debug``, before or after the verb: tracebacks instead of sentences alone."""
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
