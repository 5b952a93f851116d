"""The settings as text: the commented template of a file, and the tables of docs/CONFIGURATION.md.

Both are made from the metadata of the settings, so they always match what the node reads.
"""

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from typing import Any

from deca_node.daemon.settings.sources import FILES, TYPE_WORDS, SettingsKind, flag_of, variable_of

_PREAMBLE = """\
# {file} for deca-node: {idea}
# A line that is commented out shows the default. Uncomment the lines that you change.
# A flag ({flag}) or a variable ({variable}) overrides a line of this file.
"""


def value_text(value: Any) -> str:
    """A value as TOML spells it: ``"text"``, ``48``, ``5e-05``, ``true``."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def allowed(field: "dataclasses.Field[Any]") -> str:
    """The allowed values in words: ``forward, backward or shuffled``, ``0 to 0.9``, ``a whole number from 1``."""
    choices, low, high = (field.metadata[fact] for fact in ("choices", "low", "high"))
    if choices:
        return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
    word = TYPE_WORDS[field.type]
    if low is None:
        return word
    return f"{word} from {low:g}" + ("" if high is None else f" to {high:g}")


def template(kind: SettingsKind, values: Mapping[str, Any] | None = None, why: Mapping[str, str] | None = None) -> str:
    """A commented TOML file with every setting of a kind: at its default, or with the value that is given for it, and
    with ``why`` it was given as a further comment."""
    first = dataclasses.fields(kind)[0].name
    idea = (kind.__doc__ or "").partition(":")[2].strip().splitlines()[0]
    head = _PREAMBLE.format(file=FILES[kind], idea=idea, flag=flag_of(first), variable=variable_of(first))
    return head + "".join(
        _entry(field, values or {}, (why or {}).get(field.name)) for field in dataclasses.fields(kind)
    )


def table(kind: SettingsKind) -> str:
    """A Markdown table with every setting of a kind."""
    rows = [_row(field) for field in dataclasses.fields(kind)]
    return "\n".join(["| setting | default | unit | allowed | what it does |", "|---|---|---|---|---|", *rows]) + "\n"


def _entry(field: "dataclasses.Field[Any]", values: Mapping[str, Any], why: str | None) -> str:
    unit = f" Unit: {field.metadata['unit']}." if field.metadata["unit"] else ""
    text = f"{field.metadata['help']}{unit} Allowed: {allowed(field)}."
    texts = [text, why] if why else [text]
    width: dict[str, Any] = {"width": 98, "initial_indent": "# ", "subsequent_indent": "# ", "break_on_hyphens": False}
    lines = [line for each in texts for line in textwrap.wrap(each, **width)]
    given = field.name in values
    line = f"{'' if given else '#'}{field.name} = {value_text(values[field.name] if given else field.default)}"
    return "\n" + "\n".join(lines) + f"\n{line}\n"


def _row(field: "dataclasses.Field[Any]") -> str:
    cells = (
        f"`{field.name}`",
        f"`{value_text(field.default)}`",
        field.metadata["unit"],
        allowed(field),
        field.metadata["help"],
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
