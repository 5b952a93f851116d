"""``make soak MINUTES=60``: figures on standard output and as JSON; the exit code is 1 if a promise was broken."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.run import soak


def main() -> int:
    """Parse, soak, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the run under faults; another run precedes it")
    parser.add_argument("--seed", type=int, default=0, help="of the schedule")
    parser.add_argument("--out", type=Path, default=Path("soak.json"), help="the file for the figures")
    parser.add_argument("--keep", type=Path, help="a new folder for what the nodes write; else it is removed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deca-soak-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = soak(folder, chosen.minutes, chosen.seed, say)
    found.write(chosen.out)
    for sentence in [*found.sentences(), f"figures: {chosen.out}"]:
        say(sentence)
    return 1 if found.broken else 0


def say(sentence: str) -> None:
    """A line with the time, at once."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
