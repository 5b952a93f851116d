"""The parts of the run. Each returns what goes into the file of results, and says in a sentence what is missing."""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.shapes import SHAPES, Shape, shrunk
from bench.harness import ROOT, Row, run_trial

WARM_UP_STEPS = 2
BUDGET = 24 * 10**9
"""The memory of the card that the project has in mind, in bytes. CUDA itself takes about 1 GB of it."""

NEIGHBOURS = 2
SECONDS_PER_TRIAL = 240


class Work:
    """What every part knows: the options, and when the run ends."""

    def __init__(self, arguments: argparse.Namespace, cards: int) -> None:
        self.arguments, self.cards = arguments, cards
        self.dry: bool = arguments.dry_run
        self.device = "cpu" if self.dry else "cuda:0"
        self.shapes: dict[str, Shape] = {n: shrunk(SHAPES[n]) if self.dry else SHAPES[n] for n in arguments.shapes}
        self.length = 32 if self.dry else arguments.length
        self.dtype = "bfloat16"
        self._end = time.monotonic() + 60 * arguments.minutes

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.monotonic()

    def job(self, shape: str, **more: Any) -> Row:
        """A trial's job."""
        given = {"size": "quick", "config": self.shapes[shape], "device": self.device, "dtype": self.dtype}
        given |= {"threads": self.arguments.threads, "batch": 1, "length": self.length, "seed": 0}
        return given | {"steps": WARM_UP_STEPS + self.arguments.steps, "neighbours": 0, "position": "middle"} | more


# --- the kernels ------------------------------------------------------------------------------------


def kernels(work: Work) -> Row:
    """The tests that compare Triton's kernels with torch bit by bit, on this device."""
    if not find_spec("triton"):
        return {"missing": "Triton is not installed: pip install triton (torch's CUDA builds bring it)"}
    # What the compiler makes of the kernels needs no GPU, and takes a minute.
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not machine_code"]
    return counted(command(work, *words, "tests/numerics/codecs/test_fused.py"))


def counted(done: "subprocess.CompletedProcess[str]") -> Row:
    """What pytest said in its last line."""
    last = (done.stdout.strip().splitlines() or ["pytest said nothing"])[-1]
    return {"passed": done.returncode == 0, "said": last, **({} if done.returncode == 0 else tail(done))}


def codecs(work: Work) -> Row:
    """The speeds of the kernels as shares of the card's copy bandwidth, each with the bits of torch."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "bench.codec", "--device", work.device, "--results", folder]
        done = command(work, *words, *(["--quick"] if work.dry else ["--mib", "1024"]))
        if done.returncode:
            return {"missing": "the bench of the codecs did not end well", **tail(done)}
        found: Row = json.loads(next(Path(folder).glob("codec*.json")).read_text(encoding="utf-8"))
    copy = found["copy"]["gb_per_second"]
    rows = [row | {"of_copy": round(row["gb_per_second"] / copy, 3)} for row in found["rows"]]
    return {"copy_gb_per_second": copy, "job": found["job"], "rows": rows}


# --- steps ------------------------------------------------------------------------------------------


def arms(work: Work, packages: str) -> Iterator[Row]:
    """The trials of one shape, the most important first. Only this engine's are held to the budget."""
    limits = {} if work.dry else {"budget": BUDGET}
    for position in ("first", "middle", "last"):
        yield {"arm": "deca", "neighbours": NEIGHBOURS, "position": position, **limits}
    yield {"arm": "deca", "neighbours": NEIGHBOURS, "position": "first", "checkpointing": True, **limits}
    yield {"arm": "adamw"}
    yield {"arm": "adamw", "checkpointing": True}
    if packages:
        yield from ({"arm": arm, "packages": packages} for arm in ("lora", "badam"))


def steps(work: Work, packages: str) -> Row:
    """One step of each shape: time, tokens per second and peak, beside ``plan`` and other methods."""
    rows: list[Row] = []
    left_out: list[str] = []
    for name in work.shapes:
        plans = {checkpointing: planned(work, name, checkpointing=checkpointing) for checkpointing in (False, True)}
        for arm in arms(work, packages):
            said = ", ".join([name, arm["arm"], arm.get("position", "middle"), *arm.keys() & {"checkpointing"}])
            if work.left < 20:
                left_out.append(said)
                continue
            rows.append(step_row(work, name, arm, plans[bool(arm.get("checkpointing"))]))
            print(f"{said}: {brief(rows[-1])}", flush=True)
    return {"length": work.length, "batch": 1, "dtype": work.dtype, "rows": rows, "left_out": left_out}


def step_row(work: Work, name: str, arm: Row, plan: Row) -> Row:
    """One trial. Where the budget is too small, it is repeated without one, for the figures."""
    row: Row = {"shape": name, "arm": arm["arm"], "checkpointing": bool(arm.get("checkpointing"))}
    seconds = max(min(SECONDS_PER_TRIAL, work.left), 20)
    try:
        report = run_trial(work.job(name, **arm), seconds=seconds)
        if "budget" in arm:
            row["within_budget"] = report["fits"]
            if not report["fits"]:
                free = {key: value for key, value in arm.items() if key != "budget"}
                report = run_trial(work.job(name, **free), seconds=seconds)
    except (RuntimeError, subprocess.TimeoutExpired) as problem:
        return row | {"problem": str(problem)[-400:]}
    if not report["fits"]:
        return row | {"problem": "it does not fit this card"}
    return row | figures(work, report, plan if arm["arm"] == "deca" else {})


def brief(row: Row) -> str:
    """One step in a line of progress."""
    if "problem" in row:
        return str(row["problem"])
    return (
        f"{1000 * row['step_seconds']:.0f} ms, {row['peak_bytes'] / 1e9:.2f} GB, {row.get('of_plan', '-')} of the plan"
    )


def figures(work: Work, report: Row, plan: Row) -> Row:
    """Time, speed and memory of one trial, and what ``plan`` says of the same block."""
    seconds = statistics.median(report["seconds"][WARM_UP_STEPS:])
    row: Row = {
        "block": report["block"],
        "step_seconds": round(seconds, 5),
        "tokens_per_second": round(work.length / seconds, 1),
        "peak_bytes": report["peak_bytes"],
        "changed": len(report["changed"]),
        "finite": all(map(math.isfinite, report["losses"])),
    }
    if row["block"] in plan:
        row |= {"plan_bytes": plan[row["block"]], "of_plan": round(report["peak_bytes"] / plan[row["block"]], 3)}
    return row


def planned(work: Work, name: str, *, checkpointing: bool) -> Row:
    """The bytes of every block as ``deca-node plan`` says before a run, from a config.json alone."""
    with tempfile.TemporaryDirectory() as folder:
        facts = work.shapes[name] | {"torch_dtype": work.dtype}
        (Path(folder) / "config.json").write_text(json.dumps(facts), encoding="utf-8")
        words = ["-m", "deca_node", "plan", "--json", "--model", folder, "--nodes", str(NEIGHBOURS + 1)]
        words += ["--topology", "full", "--sequence-length", str(work.length), "--batch-size", "1"]
        # On a CPU the plan counts frames, and the trial does as well.
        words += ["--device", "cpu" if work.dry else "cuda", "--dtype", work.dtype]
        done = command(work, *words, *(["--gradient-checkpointing"] if checkpointing else []))
    if done.returncode:
        print(f"plan said nothing: {done.stderr[-300:]}", file=sys.stderr)
        return {}
    return {block["block"]: block["total_bytes"] for block in json.loads(done.stdout)["blocks"]}


# --- ranks ------------------------------------------------------------------------------------------


def ranks(work: Work) -> Row:
    """One node with one rank and with two, where there are two cards."""
    if not work.dry and work.cards < 2:
        return {"missing": f"two ranks need two cards, and here is {work.cards}"}
    devices = ["cpu", "cpu*2"] if work.dry else ["cuda:0", "cuda:0,cuda:1"]
    job = work.job(next(iter(work.shapes)), devices=devices, batch=4, block_layers=2 if work.dry else 6)
    done = command(work, "-m", "bench.gpu.ranks", json.dumps(job))
    if done.returncode:
        return {"missing": "the node did not end well", **tail(done)}
    return {"rows": json.loads(done.stdout.splitlines()[-1])}


# --- processes --------------------------------------------------------------------------------------


def command(work: Work, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with these words, until the run's end at most."""
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(work.left, 10),
        )
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(list(words), 1, "", f"the time was over: {late}")


def tail(done: "subprocess.CompletedProcess[str]") -> Row:
    """The end of what a process said."""
    return {"output": (done.stdout + done.stderr)[-1500:]}
