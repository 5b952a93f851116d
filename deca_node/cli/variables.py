"""Every flag has an environment variable.

The variable of a setting is ``DECA_`` and the setting's name. :mod:`deca_node.daemon.settings.sources` reads these
variables, and refuses a ``DECA_*`` that it does not know.

The variable of a verb's own flag is ``DECA_``, the verb and the flag: ``--last`` of ``events`` is ``DECA_EVENTS_LAST``,
``--days`` of ``cert init`` is ``DECA_CERT_INIT_DAYS``. Click reads these variables. This module names them when a verb
is looked up, so no flag is forgotten. A flag that names its own variable keeps it, such as ``DECA_DIR`` of ``--dir``.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import click

PREFIX = "DECA"
WITHOUT = {"help", "version"}
"""Flags without a variable, because they make no sense in an environment."""


def name_variables(command: click.Command, *path: str) -> click.Command:
    """Give every flag of a verb and of its sub-verbs a variable. ``path`` holds the words that call the verb."""
    for option in own_flags(command):
        if option.envvar is None and option.name not in WITHOUT:
            option.envvar, option.show_envvar = _variable(*path, long_name(option)), True
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            name_variables(below, *path, name)
    return command


def own_flags(command: click.Command) -> Iterator[click.Option]:
    """The flags that belong to the verb alone, without the settings."""
    for option in command.params:
        if isinstance(option, click.Option) and not hasattr(option, "section"):
            yield option


def long_name(option: click.Option) -> str:
    """``step-seconds`` of ``--step-seconds``."""
    return next(name for name in option.opts if name.startswith("--"))[2:]


def variables_of(command: click.Command) -> Iterator[str]:
    """The variables of a verb and of its sub-verbs, after :func:`name_variables`."""
    for option in own_flags(command):
        if isinstance(option.envvar, str):
            yield option.envvar
    for below in getattr(command, "commands", {}).values():
        yield from variables_of(below)


def without_verbs_own(
    environ: Mapping[str, str],
    settings: Collection[str],
    verbs: Iterable[str],
    look_up: Callable[[str], click.Command | None],
) -> dict[str, str]:
    """``environ`` without the variables of the verbs' own flags, so that only ``settings`` and unknown names are left.

    A verb's own variables begin with the verb's prefix. A variable of a setting always stays, even if it begins like a
    verb (``DECA_CHECKPOINT_EVERY``), and so does a variable that several verbs share (``DECA_DIR``). A verb is looked
    up only where a variable begins with its prefix.
    """
    left = dict(environ)
    for verb in verbs:
        prefix = _variable(verb, "")
        if any(name.startswith(prefix) for name in environ.keys() - settings):
            command = look_up(verb)
            own = {name for name in variables_of(command) if name.startswith(prefix)} if command else set()
            for name in own.difference(settings):
                left.pop(name, None)
    return left


def _variable(*words: str) -> str:
    return "_".join((PREFIX, *words)).upper().replace("-", "_")
