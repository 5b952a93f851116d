"""Common parts of all measurements: child processes, facts about the machine, and the files of results.

The parent process only plans and prints. It imports no torch, so that it takes neither memory nor cores from the
measurement. Every number comes from a child process of its own (:mod:`bench.trial`).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
MIB = 2**20

Row = dict[str, Any]


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all measurements have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a tiny model and few steps, to see that it runs")
    options.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1, help="torch threads")
    options.add_argument("--batch", type=int, default=1, help="sequences per step")
    options.add_argument("--length", type=int, default=128, help="tokens per sequence")
    options.add_argument("--seed", type=int, default=0, help="seed of weights and tokens")
    options.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    return options


def shared_job(arguments: argparse.Namespace) -> Row:
    """The part of a trial's job that follows from the shared options."""
    names = ("threads", "batch", "length", "seed")
    return {"size": "quick" if arguments.quick else "full", **{name: getattr(arguments, name) for name in names}}


def run_trial(job: Row, environment: dict[str, str] | None = None, seconds: float = 3600) -> Row:
    """Run one trial in a new Python process and return its report.

    Raises RuntimeError, with the end of the child's output, if it fails, and TimeoutExpired after so many ``seconds``.
    """
    # Waiting threads must sleep. On a busy machine threads that spin would be measured too.
    settings = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", **(environment or {})}
    command = [sys.executable, "-m", "bench.trial", json.dumps(job)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=seconds
    )
    if done.returncode != 0:
        raise RuntimeError(f"the trial {job} failed:\n{done.stderr[-2000:]}")
    report: Row = json.loads(done.stdout.splitlines()[-1])
    return report


def write_results(name: str, arguments: argparse.Namespace, content: Row) -> Path:
    """Write ``NAME.json`` (``NAME-quick.json``): the date, the command and the machine, then ``content``."""
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = Path(arguments.results) / f"{name}{'-quick' if arguments.quick else ''}.json"
    head = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv[1:]),
        "seed": arguments.seed,
        "machine": machine_facts(),
    }
    path.write_text(json.dumps(head | content, indent=2) + "\n", encoding="utf-8")
    return path


def _command(words: list[str]) -> str:
    """The command of this process, without the folder of the results."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
    at = words.index("--results") if "--results" in words else len(words)
    return " ".join(["python", "-m", module, *words[:at], *words[at + 2 :]])


def own_cores(node: int, nodes: int) -> set[int]:
    """The cores of one node, as if it had a machine of its own: a share of this process's cores that no other node has,
    unless there are more nodes than cores."""
    cores = sorted(os.sched_getaffinity(0))
    if nodes > len(cores):
        return {cores[node % len(cores)]}
    return set(cores[node * len(cores) // nodes : (node + 1) * len(cores) // nodes])


def machine_facts() -> Row:
    """The facts of the machine on which the numbers depend."""
    return {
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "load_average": [round(load, 2) for load in psutil.getloadavg()],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: package_version(name) for name in ("torch", "transformers")},
    }


def cpu_name() -> str:
    """The name of the processor, from the system."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def package_version(name: str) -> str:
    """The installed version, or a dash."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"
