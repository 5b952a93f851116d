"""How a setting is declared: its default, help, unit and limits in one place.

The settings of the run (agreed by all nodes) and of the node (local) are frozen dataclasses. :func:`setting` makes
their fields. The checks, ``--help``, the reference in the docs and ``deca-node config --show`` read the same metadata.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from deca_node.protocol.errors import SettingsError

WHOLE_MAX = 2**53
"""The largest whole number of a setting. Up to here every whole number is also a float."""


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field with its documentation. ``low`` and ``high`` are inclusive limits."""
    facts = {"help": help, "unit": unit, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=facts)


def check_limits(settings: Any) -> None:
    """Check every field of a settings dataclass against its own choices and limits.

    Raises SettingsError, which names the field, the value and the allowed values.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        facts = field.metadata
        if facts.get("choices"):
            check_choices(field.name, [value], facts["choices"])
        _check_range(field.name, value, facts.get("low"), facts.get("high"))


def _check_range(name: str, value: Any, low: float | None, high: float | None) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if isinstance(value, int) and abs(value) > WHOLE_MAX:
        raise SettingsError(f"{name} is a whole number beyond 2^53; give a smaller one")
    if not math.isfinite(value):
        raise SettingsError(f"{name} = {value} is not a finite number")
    if low is not None and value < low:
        raise SettingsError(f"{name} = {value} is below its smallest value, {low}")
    if high is not None and value > high:
        raise SettingsError(f"{name} = {value} is above its largest value, {high}")


def check_names(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise SettingsError for an unknown name; the sentence suggests the nearest valid one."""
    known = list(known)
    for name in given:
        if name not in known:
            raise SettingsError(f"{where}: there is no setting {name!r}{nearest(name, known)}")


def check_choices(name: str, values: Iterable[str], choices: tuple[str, ...]) -> None:
    """Check every value of a setting that is a list. Raises SettingsError for a value that is no choice."""
    for value in values:
        if value not in choices:
            raise SettingsError(f"{name} = {value!r} is not one of {', '.join(choices)}{nearest(value, choices)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest known name, or an empty text if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def canonical(value: Any) -> str:
    """The spelling of a value in fingerprints: ``repr`` for floats, plain text for all other types."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={canonical(value[key])}" for key in sorted(value))
    return str(value)
