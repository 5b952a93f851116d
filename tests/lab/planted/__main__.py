"""``python -m tests.lab.planted``: run storms with every planted fault, and print which storms found it."""

import argparse
import sys

from tests.lab.planted.faults import FAULTS
from tests.lab.planted.planting import storms_with


def main() -> int:
    """Returns 1 if a fault was not found."""
    parser = argparse.ArgumentParser(description="Do storms find the faults that are planted in the core?")
    parser.add_argument("--fault", choices=[fault.name for fault in FAULTS], action="append", help="only this one")
    parser.add_argument("--storms", type=int, default=500, help="the most storms with each fault")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    chosen = parser.parse_args()
    found = 0
    faults = [fault for fault in FAULTS if not chosen.fault or fault.name in chosen.fault]
    for fault in faults:
        result = storms_with(fault, range(chosen.first, chosen.first + chosen.storms))
        found += result.seed is not None
        where = "not found" if result.seed is None else f"storm {result.seed}"
        sys.stdout.write(f"{fault.name:30} {result.storms:4} storms  {where:12} {result.how[:150]}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{found} of {len(faults)} faults found\n")
    return int(found < len(faults))


if __name__ == "__main__":
    sys.exit(main())
