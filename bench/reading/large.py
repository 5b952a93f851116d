"""A node on more data than its memory: started, killed while it reads, started again, stopped, and started once more.

The node's processes are in a control group of memory (version 1), which counts the pages of mapped files that the
system keeps for them as well; beyond the limit it takes pages back, and where there are none it ends a process.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.harness import MIB, Row
from bench.reading.corpus import LONG, write_corpus, write_model
from deca_node.lab.rigs.processes import LocalNodes, NodeProcess, write_peers

GROUPS = Path("/sys/fs/cgroup/memory")
STEPS_PER_START = 16
TICK_SECONDS = 1.0
KILLED_AT = 0.1
"""Share of the text after which the node is killed."""
FLAGS: dict[str, object] = {
    "--insecure": True,
    "--device": "cpu",
    "--threads": 2,
    "--trainer-priority": "normal",
    "--sequence-length": 256,
    "--batch-size": 2,
    "--rounds": 1000,
    "--inner-steps": 8,
    "--eval-sequences": 8,
}


def run_large(folder: Path, gigabytes: float, limit_mib: int, seed: int, say: Callable[[str], None]) -> Row:
    """Start the node three times. Returns what each start took and what memory the group had at most."""
    size = int(gigabytes * 1e9)
    write_model(folder / "model", seed, LONG)
    began = time.monotonic()
    write_corpus(folder / "text.jsonl", size, seed, LONG)
    say(f"wrote {gigabytes:g} GB of text in {time.monotonic() - began:.0f} s")
    peers = write_peers(folder / "peers.txt", ["big"])
    paths = {"--data": folder / "text.jsonl", "--model": folder / "model", "--peers": peers}
    starts: list[Row] = []
    with LocalNodes() as nodes, memory_group(limit_mib) as group:
        for number, until in enumerate((killed, stopped, stopped)):
            within = ("sh", "-c", f'echo $$ > {group}/tasks && exec "$@"', "sh")
            (group / "memory.max_usage_in_bytes").write_text("0")
            began = time.monotonic()
            node = nodes.start("big", folder / "big", FLAGS | paths, within=within)
            row = {"start": number, **until(node, group), "seconds": time.monotonic() - began}
            row["peak_mib"] = int((group / "memory.max_usage_in_bytes").read_text()) / MIB
            row["failures"] = int((group / "memory.failcnt").read_text())
            row["log"] = [line for line in node.log_text().splitlines() if "reading and tokenizing" not in line][-12:]
            starts.append(row)
            say(json.dumps({name: value for name, value in row.items() if name != "log"}))
    tokens = {path.name: path.stat().st_size for path in (folder / "big" / "tokens").rglob("*") if path.is_file()}
    return {"bytes": size, "limit_mib": limit_mib, "starts": starts, "tokens_bytes": tokens}


@contextlib.contextmanager
def memory_group(limit_mib: int) -> Iterator[Path]:
    """A control group with this limit. Raises OSError where this user may make none."""
    group = GROUPS / f"deca-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit_mib * MIB))
        yield group
    finally:
        for _ in range(20):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(TICK_SECONDS)


def own_bytes(group: Path) -> int:
    """Memory of the group's processes that is no page of a file."""
    facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(facts["total_rss"])


def watched(node: NodeProcess, group: Path, done: Callable[[str], bool]) -> int:
    """Wait until the log says enough. Returns the largest own memory that was seen.

    Raises RuntimeError, with the end of the log, if the node ends before.
    """
    most = 0
    while not done(node.log_text()):
        if node.process.poll() is not None:
            raise RuntimeError(f"the node ended with exit code {node.process.returncode}:\n{node.log_text(20)}")
        most = max(most, own_bytes(group))
        time.sleep(TICK_SECONDS)
    return most


def killed(node: NodeProcess, group: Path) -> Row:
    """Let the node read a part of its data, and kill all its processes."""

    def enough(log: str) -> bool:
        shares = [line.partition(" % of ")[0].rpartition(" ")[2] for line in log.splitlines() if " % of " in line]
        return bool(shares) and int(shares[-1]) >= 100 * KILLED_AT

    most = watched(node, group, enough)
    for process in (group / "tasks").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    node.process.wait()
    return {"end": "killed", "own_mib": most / MIB}


def stopped(node: NodeProcess, group: Path) -> Row:
    """Let the node read, train some steps, and stop in good order."""
    metrics = node.directory / "metrics.jsonl"
    before = steps(metrics)
    began = time.monotonic()
    reading = watched(node, group, lambda log: " sequences to train on " in log)
    read = time.monotonic() - began
    training = watched(node, group, lambda log: steps(metrics) >= before + STEPS_PER_START)
    trained = time.monotonic() - began - read
    node.process.send_signal(signal.SIGINT)
    code = node.process.wait()
    return {
        "end": f"exit code {code}",
        "own_mib": max(reading, training) / MIB,
        "read_seconds": read,
        "train_seconds": trained,
        "steps": steps(metrics) - before,
    }


def steps(metrics: Path) -> int:
    """How many steps a node has written down."""
    return metrics.read_text().count('"kind": "step"') if metrics.exists() else 0
