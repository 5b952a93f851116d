"""A tracker's process: lines of JSON on standard input become numbers at one service.

::

    {"service": "wandb", "project": ..., ...}        first
    [{"step/loss": 2.5, ...}, 17]                    numbers, and the step that they belong to

The end of standard input ends the run. An error of the service is the last line of this process's output.
"""

import json
import sys
from typing import TextIO

from deca_node.daemon.tracking.services import SERVICES, Begin


def main(lines: TextIO) -> int:
    """Hand the numbers on until there are no more. Returns 1 if the service fails."""
    facts = json.loads(lines.readline())
    try:
        service = SERVICES[facts.pop("service")](Begin(**facts))
        for line in lines:
            figures, step = json.loads(line)
            service.add(figures, step)
        service.close()
    except Exception as problem:  # noqa: BLE001  (services raise errors of their own, and all of them mean the same)
        print(f"{type(problem).__name__}: {' '.join(str(problem).split())}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
