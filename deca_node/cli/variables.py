"""Every flag has a variable: ``DECA_`` and the setting's name, or ``DECA_``, the verb's name and the flag's.

Settings are read by :mod:`deca_node.daemon.settings.sources`, which refuses a ``DECA_*`` that it does not know. The
verbs' own flags are read by click; their variables are given out here, when a verb is looked up, so that none can be
forgotten: ``--last`` of ``events`` is ``DECA_EVENTS_LAST``, ``--days`` of ``cert init`` ``DECA_CERT_INIT_DAYS``. A flag
that names its variable itself (``--dir`` of a node: ``DECA_DIR``) keeps it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import click

PREFIX = "DECA"
WITHOUT = {"help", "version"}
"""Flags that would make no sense in an environment."""


def name_variables(command: click.Command, *path: str) -> click.Command:
    """Give every flag of a verb, and of the verbs below it, its variable; ``path`` is how the verb is called."""
    for option in own_flags(command):
        if option.envvar is None and option.name not in WITHOUT:
            option.envvar, option.show_envvar = _variable(*path, long_name(option)), True
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            name_variables(below, *path, name)
    return command


def own_flags(command: click.Command) -> Iterator[click.Option]:
    """The flags that belong to the verb alone; settings, which have variables of their own, are left out."""
    for option in command.params:
        if isinstance(option, click.Option) and not hasattr(option, "section"):
            yield option


def long_name(option: click.Option) -> str:
    """``step-seconds`` of ``--step-seconds``."""
    return next(name for name in option.opts if name.startswith("--"))[2:]


def variables_of(command: click.Command) -> Iterator[str]:
    """The variables of a verb that :func:`name_variables` has seen, and of those below it."""
    for option in own_flags(command):
        if isinstance(option.envvar, str):
            yield option.envvar
    for below in getattr(command, "commands", {}).values():
        yield from variables_of(below)


def without_verbs_own(
    environ: Mapping[str, str], verbs: Iterable[str], look_up: Callable[[str], click.Command | None]
) -> dict[str, str]:
    """``environ`` without the variables of the verbs' own flags: what is left must be settings. A verb is looked up
    only where a variable begins with its name."""
    left = dict(environ)
    for verb in verbs:
        if any(name.startswith(_variable(verb, "")) for name in environ):
            command = look_up(verb)
            for name in variables_of(command) if command else ():
                left.pop(name, None)
    return left


def _variable(*words: str) -> str:
    return "_".join((PREFIX, *words)).upper().replace("-", "_")
