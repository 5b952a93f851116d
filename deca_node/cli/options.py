"""Every setting as a flag: click options are made from the metadata of the settings.

A verb that takes settings is decorated with :func:`settings_options` and calls :func:`load`. The flags pass their text
on without reading it, because the settings themselves check all values, from whatever source.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from deca_node.cli.invocation import Decorated
from deca_node.cli.variables import without_verbs_own
from deca_node.cli.verb_table import COMMANDS, look_up
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.sources import Loaded, SettingsKind, flag_of, load_settings, variable_of
from deca_node.protocol.agreed.run import RunSettings

RUN_SECTION = "Run settings (equal on all nodes; run.toml)"
NODE_SECTION = "Node settings (this machine's own; node.toml)"
SHORTER = {"wait_seconds": ("--wait",)}
"""Flags that are often typed by hand have a second, shorter name."""
_METAVARS: Mapping[Any, str] = {str: "TEXT", int: "INTEGER", float: "NUMBER"}


class SettingOption(click.Option):
    """An option with the heading of ``--help`` that it stands under."""

    def __init__(self, *names: Any, section: str, **facts: Any) -> None:
        super().__init__(*names, **facts)
        self.section = section


class SettingsCommand(click.Command):
    """A command whose ``--help`` lists run settings and node settings under their own headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options per heading, beginning with the command's own options."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], NODE_SECTION: [], RUN_SECTION: []}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record:
                sections[getattr(option, "section", "Options")].append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def settings_options(function: Decorated) -> Decorated:
    """Add ``--run FILE``, ``--config FILE`` and one option per setting of both kinds."""
    for kind, section in ((RunSettings, RUN_SECTION), (NodeSettings, NODE_SECTION)):
        for field in reversed(_fields(kind)):
            function = _setting_option(field, section)(function)
    for flag, name in (("--config", "node"), ("--run", "run")):
        function = click.option(
            flag,
            f"{name}_file",
            type=click.Path(path_type=Path),
            envvar=f"DECA_{name.upper()}_FILE",
            help=f"File of the {name} settings.  [default: ./{name}.toml, if it exists]",
        )(function)
    return function


def load(ctx: click.Context, go_on: bool = True) -> Loaded:
    """Both kinds of settings, from the flags in ``ctx``, the environment, the two files and the defaults; with
    ``go_on`` also from the last start in the node's folder. Raises SettingsError."""
    names = [field.name for kind in (RunSettings, NodeSettings) for field in _fields(kind)]
    flags = {name: ctx.params[name] for name in names if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    environ = without_verbs_own(os.environ, {variable_of(name) for name in names}, COMMANDS, look_up)
    return load_settings(flags, environ, _file(ctx, "run"), _file(ctx, "node"), go_on)


def _fields(kind: SettingsKind) -> "tuple[dataclasses.Field[Any], ...]":
    return dataclasses.fields(kind)


def _file(ctx: click.Context, name: str) -> Path | None:
    given: Path | None = ctx.params[f"{name}_file"]
    usual = Path(f"{name}.toml")
    return given or (usual if usual.exists() else None)


def _setting_option(field: "dataclasses.Field[Any]", section: str) -> Callable[[Decorated], Decorated]:
    flag = flag_of(field.name)
    facts: dict[str, Any] = {"cls": SettingOption, "section": section, "help": _help(field), "default": None}
    if field.type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, **facts)
    if field.name == "insecure":
        return click.option(flag, field.name, count=True, **facts)
    metavar = "|".join(field.metadata["choices"]) or _METAVARS[field.type]
    return click.option(*SHORTER.get(field.name, ()), flag, field.name, metavar=metavar, **facts)


def _help(field: "dataclasses.Field[Any]") -> str:
    facts = [field.metadata["unit"]] if field.metadata["unit"] else []
    if isinstance(field.default, float):
        facts.append(f"default: {field.default:g}")
    elif field.default != "" and field.type is not bool:
        facts.append(f"default: {field.default}")
    return f"{field.metadata['help']}  [{'; '.join(facts)}]" if facts else field.metadata["help"]
