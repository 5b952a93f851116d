"""One target under atheris, in a process of its own: ``python -m tests.fuzz.worker TARGET FIGURES [flags]``.

Only what is ours is watched for coverage: what a library does with bytes is the library's to fuzz. Into the file
FIGURES go the slowest input and the one that took most memory, whenever either is beaten.
"""

import json
import resource
import sys
import time
from pathlib import Path

import atheris

from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, figures = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=["deca_node"]):
        target = TARGETS[name]()
    most = {"slowest_seconds": 0.0, "largest_step_kib": 0}
    calls = 0

    def one(data: bytes) -> None:
        nonlocal calls
        calls += 1
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        target.run(data)
        took = time.process_time() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        for key, value in (("slowest_seconds", took), ("largest_step_kib", grown)):
            # The first calls also pay for imports and caches.
            if calls > 200 and value > most[key]:
                most[key] = value
                figures.write_text(json.dumps(most))
                figures.with_suffix(f".{key}").write_bytes(data)

    atheris.Setup([sys.argv[0], *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
