"""The types of JSON values: strings are checked, and error sentences name other types without quoting a value."""

import json
from collections.abc import Mapping
from typing import Any

from deca_node.numerics.data.formats.sources import Source
from deca_node.protocol.errors import DataError


def filled(value: Mapping[str, Any], key: str, source: Source) -> str:
    """The text under ``key``. Raises DataError where there is none in it."""
    text = string(value, key, source)
    if not text.strip():
        raise DataError(f'{source}: "{key}" is empty')
    return text


def string(value: Mapping[str, Any], key: str, source: Source, where: str = "") -> str:
    """The string under ``key``, which may be empty; ``where`` says of which part. Raises DataError."""
    text = value[key]
    if not isinstance(text, str):
        raise DataError(f'{source}: "{key}" {where}must be a string, not {json_type(text)}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair (a cut emoji, mostly); no tokenizer takes it.
        raise DataError(f'{source}: "{key}" {where}holds half of a character (character {error.start + 1})') from None
    return text


def json_type(value: Any) -> str:
    """What an error sentence calls the kind of a JSON value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return names.get(type(value), f"a value of type {type(value).__name__}")


def some_keys(value: Mapping[str, Any], keys_max: int = 5, length_max: int = 30) -> str:
    """The first keys of an object, for an error sentence; values are never told."""
    keys = [json.dumps(key[:length_max]) for key in list(value)[:keys_max]]
    return ", ".join(keys) + (", …" if len(value) > keys_max else "") if keys else "none"
