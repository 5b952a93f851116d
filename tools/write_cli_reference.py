"""Writes docs/CLI.md from the commands; with --check, only says whether the page is up to date."""

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deca_node.cli.options import SettingsCommand  # noqa: E402
from deca_node.cli.variables import own_flags  # noqa: E402
from deca_node.cli.verb_table import COMMANDS, look_up  # noqa: E402  (the tool runs from a checkout that is not installed)
from deca_node.cli.views.rates import TopRow  # noqa: E402
from deca_node.daemon.diagnosis.findings import Finding  # noqa: E402
from deca_node.daemon.status import facts  # noqa: E402
from deca_node.numerics.forecast.surveyed import Packed, Shown, Survey  # noqa: E402
from deca_node.numerics.learning.result import EvaluationResult  # noqa: E402

PAGE = ROOT / "docs" / "CLI.md"
INTRODUCTION = ROOT / "tools" / "cli_reference_head.md"
FACTS = (
    facts.Status,
    facts.Position,
    facts.PeerRow,
    facts.RelayRow,
    facts.CheckpointRow,
    facts.Spread,
    facts.Histogram,
    facts.MemberRow,
    TopRow,
    Finding,
    EvaluationResult,
    Survey,
    Packed,
    Shown,
)
"""The objects in JSON documents, each described by its dataclass."""
WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
}


def main(arguments: list[str]) -> int:
    """Write the page, or check it. Returns 1 if it is stale."""
    page = "\n".join([INTRODUCTION.read_text(encoding="utf-8"), *_verbs(), *_documents()]).rstrip() + "\n"
    if arguments != ["--check"]:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is stale; run python tools/write_cli_reference.py", file=sys.stderr)
    return 1


# --- verbs -------------------------------------------------------------------------------------------


def _verbs() -> Iterator[str]:
    yield "## The verbs\n"
    for name in COMMANDS:
        command = look_up(name)
        assert command is not None
        yield from _verb(command, name)
        for below in getattr(command, "commands", {}).values():
            yield from _verb(below, f"{name} {below.name}", level=4)


def _verb(command: click.Command, name: str, level: int = 3) -> Iterator[str]:
    yield f"{'#' * level} {name}\n"
    arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    yield f"`{' '.join(['deca-node', name, *arguments, '[OPTIONS]'])}`\n"
    yield f"{_unwrapped(command.help or '')}\n"
    flags = list(own_flags(command))
    if any(flag.name != "help" for flag in flags):
        yield "| flag | variable | default | what it does |\n|---|---|---|---|"
        yield from (_flag(command, flag) for flag in flags)
        yield ""
    if isinstance(command, SettingsCommand):
        yield "All settings of the run and of the node are flags, too: [CONFIGURATION.md](CONFIGURATION.md).\n"
    if command.epilog:
        yield f"```text\n{inspect.cleandoc(command.epilog.replace(chr(8), '')).strip()}\n```\n"


def _flag(command: click.Command, flag: click.Option) -> str:
    context = click.Context(command)
    metavar = "" if flag.is_flag or flag.count else f" {flag.make_metavar(context)}"
    names = " / ".join(f"`{name}`" for name in (*flag.opts, *flag.secondary_opts))
    help_text, _, rest = (flag.help or "").partition("  [default: ")
    default = rest.removesuffix("]") or _default(context, flag)
    variable = f"`{flag.envvar}`" if flag.envvar else ""
    cells = (f"{names}{f' `{metavar.strip()}`' if metavar else ''}", variable, default, help_text.strip())
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(context: click.Context, flag: click.Option) -> str:
    value = flag.get_default(context)
    if flag.required:
        return "must be given"
    return f"`{value}`" if flag.show_default and value not in (None, "") else ""


def _unwrapped(text: str) -> str:
    """The paragraphs of a docstring, one line each."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


# --- documents ---------------------------------------------------------------------------------------


def _documents() -> Iterator[str]:
    yield "## What stands in the JSON\n"
    for kind in FACTS:
        yield f"### {kind.__name__}\n"
        yield f"{_unwrapped(kind.__doc__ or '').replace('``', '`')}\n"
        yield "| field | is |\n|---|---|"
        hints = typing.get_type_hints(kind)
        yield from (f"| `{each.name}` | {_kind(hints[each.name])} |" for each in dataclasses.fields(kind))
        yield ""


def _kind(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in WORDS:
        return WORDS[hint]
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(each) for each in inner)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"object of {_kind(inner[1])} by name"
    if dataclasses.is_dataclass(hint):
        name = typing.cast(type, hint).__name__
        return f"[{name}](#{name.lower()})"
    return "text" if isinstance(hint, type) and issubclass(hint, str) else "anything"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
