"""The setting ``after_run``: what a node does when its run is complete, and how long it stays."""

import re

from deca_node.protocol.errors import SettingsError

_FORM = re.compile(r"exit|stay( (?P<number>[1-9]\d{0,6})(?P<unit>[smhd]))?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def stay_seconds(after_run: str) -> float:
    """How long the node stays; 0 where there is no limit, and where it exits. Raises SettingsError."""
    found = _FORM.fullmatch(after_run)
    if found is None:
        raise SettingsError(f"after_run = {after_run!r} is not exit, stay, or stay with a time, as in 'stay 24h'")
    return float(found["number"]) * _SECONDS[found["unit"]] if found["number"] else 0.0
