"""JSON Lines, one object per line; and ``.json`` files: an array of objects, or objects one after the other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deca_node.numerics.data.formats.opening import decoded, utf8_lines
from deca_node.numerics.data.formats.sources import Entry, Source
from deca_node.numerics.data.formats.values import json_type
from deca_node.protocol.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")


def json_lines(path: Path, content: Any, formats: str) -> Iterator[Entry]:
    """One object per line; blank lines are passed over. ``formats`` says what a record needs."""
    for number, line in enumerate(utf8_lines(path, content), start=1):
        if line.strip():
            source = Source(path, number)
            try:
                yield source, parse_object(line, source, formats)
            except DataError as error:
                yield source, error


def parse_object(line: bytes, source: Source, formats: str) -> dict[str, Any]:
    """One line of JSON as an object. Raises DataError; ``formats`` says what a record needs."""
    try:
        value = json.loads(decoded(line, source))
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: not valid JSON ({_why(error)} at character {error.pos + 1})") from None
    except (ValueError, RecursionError):
        raise DataError(f"{source}: not valid JSON (nested too deeply, or a number too long)") from None
    if not isinstance(value, dict):
        raise DataError(f"{source}: the line holds {json_type(value)} instead of an object; {formats}")
    return value


def json_objects(path: Path, content: Any, formats: str) -> Iterator[Entry]:
    """The objects of an array, or objects one after the other. The text is held in memory, the objects one at a time.

    Raises DataError where an array is not valid JSON: what follows cannot be told apart.
    """
    text = decoded(content.read(), Source(path))
    place = _SPACE.match(text).end()  # type: ignore[union-attr]
    is_array = text.startswith("[", place)
    place = _SPACE.match(text, place + is_array).end()  # type: ignore[union-attr]
    decoder, number, line, counted = json.JSONDecoder(), 0, 1, 0
    while place < len(text) and not (is_array and text[place] == "]"):
        number += 1
        line, counted = line + text.count("\n", counted, place), place
        source = Source(path, line, number if is_array else None)
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            why = "nested too deeply, or a number too long"
            if isinstance(error, json.JSONDecodeError):
                why = f"{_why(error)} at line {error.lineno}"
            bad = DataError(f"{source}: not valid JSON ({why})")
            if is_array:
                raise bad from None
            yield source, bad
            place = text.find("\n", place) + 1 or len(text)
            continue
        between = (_BETWEEN if is_array else _SPACE).match(text, end)
        assert between is not None
        if is_array and "," not in between[0] and text[between.end() : between.end() + 1] not in ("", "]"):
            raise DataError(f"{source}: not valid JSON (a comma is missing behind the record)")
        place = between.end()
        kind = "the array" if is_array else "the line"
        wrong = DataError(f"{source}: {kind} holds {json_type(value)} instead of an object; {formats}")
        yield source, value if isinstance(value, dict) else wrong
    if is_array and not text.startswith("]", place):
        raise DataError(f"{path}: not valid JSON (the end of the array is missing)")


def _why(error: json.JSONDecodeError) -> str:
    """What is wrong, without the place; some of these sentences end in "at"."""
    return error.msg.removesuffix(" at")
