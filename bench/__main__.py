"""``python -m bench``: runs, one after the other, all measurements that need only this repository."""

import subprocess
import sys

SUITES = (
    "bench.memory",
    "bench.step",
    "bench.codec",
    "bench.donor",
    "bench.giving",
    "bench.latency",
    "bench.probes",
    "bench.slow_neighbour",
    "bench.links",
    "bench.scale",
    "bench.hostile",
    "bench.privacy",
)


def main() -> int:
    """Run all suites with their defaults. The exit code is the worst of theirs."""
    worst = 0
    for suite in SUITES:
        print(f"== {suite}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", suite, *sys.argv[1:]], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
