"""JSON that somebody else wrote, or that a crash cut short: one error for all that can be wrong with it.

The standard library's reader raises ValueError for what is no JSON, and RecursionError for what is nested more deeply
than the interpreter goes. Whoever then takes the result apart meets the rest: a list where an object belongs, text
where a number does, a whole number of a thousand digits that is no float, a 1e999 that is no whole number.
"""

import json
from typing import Any

UNFIT = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
"""What reading JSON, and taking out of it what ought to be there, raises where it is not."""


def parse(text: str | bytes) -> Any:
    """What the JSON says. Raises ValueError for whatever cannot be read, however it is malformed."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
