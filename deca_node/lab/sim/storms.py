"""Storms: seeded runs of small clusters with faults of every kind, checked after every event.

::

    python -m deca_node.lab.sim.storms --seeds 10000 --processes 2
    python -m deca_node.lab.sim.storms --seed 4711        one seed, with its whole transcript

One seed decides the number of nodes, their run, their policy and their faults: slow and broken links; nodes that sleep,
or crash and return with or without their disk; trainers that die; disks that refuse; bytes that were changed on the
way; and users who pause and stop nodes (:mod:`deca_node.lab.sim.drawn`). What must hold after every event and at the
end is in :mod:`deca_node.lab.sim.checks`. In one storm of ten the production exchange runs beside its reference, in two
a storm of membership comes first, and one has no faults at all. Every run must end in time.
"""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator

from deca_node.lab.sim.checks.audit import Audit
from deca_node.lab.sim.checks.endings import check_end, counted
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.drawn import GOSSIP, KINDS, UNTIL, Storm, storm
from deca_node.lab.sim.gossip_storms import gossip_storm


def weathered(seed: int) -> tuple[Storm, Cluster, Audit]:
    """Run one storm. Raises AssertionError, with seed and transcript, if a rule is broken."""
    if seed % KINDS in GOSSIP:
        gossip_storm(seed)
    chosen = storm(seed)
    cluster, audit = chosen.cluster()
    cluster.run(until=UNTIL)
    try:
        check_end(chosen, cluster, audit)
    except AssertionError as problem:
        problem.add_note(f"storm {seed}; the transcript ends with\n{cluster.transcript(60)}")
        raise
    return chosen, cluster, audit


def _outcome(seed: int) -> tuple[int, str, Counter[str]]:
    try:
        _, cluster, audit = weathered(seed)
    except Exception:  # noqa: BLE001 - whatever it is, it is this seed's finding
        return seed, traceback.format_exc(), Counter()
    return seed, "", counted(cluster) + Counter(events=len(cluster.lines), uneven=len(audit.single))


def outcomes(seeds: range, processes: int) -> Iterator[tuple[int, str, Counter[str]]]:
    """The seed, the failure (or an empty text) and the counters of every storm, in the order in which they finish."""
    if processes == 1:
        yield from map(_outcome, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_outcome, seeds, chunksize=20)


def main() -> int:
    """Run storms, and return the number of failures."""
    parser = argparse.ArgumentParser(description="Whole runs of small clusters with faults of every kind.")
    parser.add_argument("--seeds", type=int, default=1000, help="the number of storms")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run only this storm, and print its transcript")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return _show(chosen.seed)
    began, failed, total = time.perf_counter(), 0, Counter[str]()
    for done, (seed, failure, counters) in enumerate(
        outcomes(range(chosen.first, chosen.first + chosen.seeds), chosen.processes), 1
    ):
        total += counters
        if failure:
            failed += 1
            _write(f"\n{failure}\nthe whole transcript: python -m deca_node.lab.sim.storms --seed {seed}\n")
        if done % 500 == 0 or done == chosen.seeds:
            _write(f"{done:,} storms, {failed:,} failed, {time.perf_counter() - began:.0f} s\n")
    _write(", ".join(f"{name} {count:,}" for name, count in sorted(total.items())) + "\n")
    return min(failed, 1)


def _show(seed: int) -> int:
    chosen = storm(seed)
    cluster, audit = chosen.cluster()
    try:
        cluster.run(until=UNTIL)
        check_end(chosen, cluster, audit)
    finally:
        _write(f"{chosen}\n{cluster.transcript()}\n")
    return 0


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
