"""A node as in ``proxied``, whose wall clock is off by the seconds in the file that SOAK_CLOCK names, and whose steps
take LINKS_PACE_SECONDS or more.

Python imports this module at its start where its folder is on PYTHONPATH.
"""

import os
import runpy
import time
from pathlib import Path

LOOK_SECONDS = 0.5


class WallClock:
    """The system's clock, and how far this process's clock is off."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._plain, self._plain_ns = time.time, time.time_ns
        self._offset, self._looked = 0.0, -LOOK_SECONDS

    def offset(self) -> float:
        if time.monotonic() > self._looked + LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                self._offset = float(self._file.read_text())
            except (OSError, ValueError):
                self._offset = 0.0
        return self._offset

    def time(self) -> float:
        return self._plain() + self.offset()

    def time_ns(self) -> int:
        return self._plain_ns() + round(self.offset() * 1e9)


if "SOAK_CLOCK" in os.environ:
    clock = WallClock(Path(os.environ["SOAK_CLOCK"]))
    time.time, time.time_ns = clock.time, clock.time_ns

runpy.run_path(str(Path(__file__).parents[1] / "proxied" / "sitecustomize.py"))
if "LINKS_PACE_SECONDS" in os.environ:
    runpy.run_path(str(Path(__file__).parents[4] / "bench/links/pace/sitecustomize.py"))
