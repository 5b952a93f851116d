"""JSON from outside, or cut short by a crash: which errors reading it can raise.

The standard library's reader raises ValueError for text that is not JSON, and RecursionError for values that are nested
too deeply. Code that then takes the values apart meets further errors: a list in place of an object, text in place of a
number, an integer of a thousand digits that does not fit a float, or 1e999, which is not an integer.
"""

import json
from typing import Any

UNFIT = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
"""All that reading JSON, and taking expected values out of it, can raise if they are not there."""


def parse(text: str | bytes) -> Any:
    """Read JSON. Raises ValueError if it is malformed in any way."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
