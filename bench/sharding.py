"""``python -m bench.sharding``: the peak memory of each rank of a sharded model, beside the plan's figure.

A node without neighbours visits one block, with as many ranks as ``--ranks`` says. Each rank is a process of its own on
the CPU. Counted is RssAnon of /proc/self/status, the memory that belongs to the process alone. The pages of the model's
file, which a rank reads at its start, are the system's: all ranks share them, and the system frees them whenever memory
is short. RssAnon leaves them out, and RssFile reports them. What the process had before the model was loaded (Python,
torch, transformers) is subtracted. glibc returns freed memory at once. A thread looks every few milliseconds, so a
shorter peak would be missed. One rank stands for the whole model.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.harness import MIB, ROOT, Row, parser, shared_job, write_results

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
LOOK_SECONDS = 0.002
REPORT = "deca-report "


def main() -> None:
    """Measure, print the table and write ``sharding.json``."""
    options = parser("Peak memory of each rank of a sharded model, beside the plan.")
    options.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4], help="numbers of ranks")
    options.add_argument("--dtype", default="float32", help="precision of the model")
    options.add_argument(
        "--blocks", nargs="+", default=["first", "middle"], help="blocks to visit: first, middle, last"
    )
    options.add_argument("--steps", type=int, default=2, help="steps with a gradient")
    arguments = options.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        job = shared_job(arguments) | {"dtype": arguments.dtype, "steps": arguments.steps, "model": f"{folder}/model"}
        child(job | {"rank": -1})
        for ranks in arguments.ranks:
            for position in arguments.blocks:
                given = job | {"ranks": ranks, "position": position, "store": tempfile.mkdtemp(dir=folder)}
                rows.extend(measured(given))
    Console().print(table(rows))
    content = {"job": shared_job(arguments), "allocator": ALLOCATOR, "rows": rows}
    Console().print(f"written to {write_results('sharding', arguments, content)}")


def measured(job: Row) -> list[Row]:
    """One row for each rank."""
    processes = [start(job | {"rank": rank}) for rank in range(job["ranks"])]
    return [json.loads(ended(process)) for process in processes]


def child(job: Row) -> str:
    """Run one process; returns its report."""
    return ended(start(job))


def start(job: Row) -> "subprocess.Popen[str]":
    """Start the process of one rank."""
    environment = os.environ | ALLOCATOR | {"OMP_NUM_THREADS": str(job["threads"]), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "bench.sharding", "--child", json.dumps(job)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]") -> str:
    """The report of a process. Raises RuntimeError if it fails."""
    said, _ = process.communicate(timeout=3600)
    reports = [line.removeprefix(REPORT) for line in said.splitlines() if line.startswith(REPORT)]
    if process.returncode or not reports:
        raise RuntimeError(f"a rank ended with code {process.returncode}")
    return reports[0]


def table(rows: list[Row]) -> Table:
    """One line for each rank."""
    found = Table(title="Peak memory of a rank, in MiB", title_justify="left")
    for heading in ("ranks", "block", "rank", "measured", "plan", "ratio", "file pages"):
        found.add_column(heading, justify="left" if heading == "block" else "right")
    for row in rows:
        figures = [f"{row[name]:,.0f}" for name in ("measured_mib", "plan_mib")]
        last = (f"{row['measured_to_plan']:.2f}", f"{row['file_mib']:,.0f}")
        found.add_row(str(row["ranks"]), row["block"], str(row["rank"]), *figures, *last)
    return found


# --- in the process of a rank -----------------------------------------------------------------------


class Peak:
    """The largest RssAnon and RssFile of this process, in bytes, from its making until ``end``."""

    def __init__(self) -> None:
        self.before = self._now()
        self.anon, self.file = self.before
        self._on = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop looking."""
        self._on = False
        self._thread.join()

    def _watch(self) -> None:
        while self._on:
            anon, file = self._now()
            self.anon, self.file = max(self.anon, anon), max(self.file, file)
            time.sleep(LOOK_SECONDS)

    @staticmethod
    def _now() -> tuple[int, int]:
        lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
        found = {words[0]: int(words[1]) * 1024 for words in lines if words[0].startswith("Rss")}
        return found["RssAnon:"], found["RssFile:"]


def run_child(job: Row) -> None:
    """Be one rank, or with rank -1 write the model."""
    import torch

    torch.set_num_threads(job["threads"])
    if job["rank"] < 0:
        write_model(job)
        print(f"{REPORT}{{}}")
        return
    from bench.sharded_rank import lead, take_part

    peak_of: Callable[[], Peak] = Peak
    row = lead(job, peak_of) if job["rank"] == 0 else take_part(job, peak_of)
    print(REPORT + json.dumps(row), flush=True)


def write_model(job: Row) -> None:
    """Write a model of random weights, and a tokenizer of a few words."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from bench.trial import random_model

    random_model(job).save_pretrained(job["model"])
    raw = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>").save_pretrained(job["model"])


def in_mib(nbytes: float) -> float:
    """MiB with one decimal."""
    return round(nbytes / MIB, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(json.loads(sys.argv[2]))
    else:
        main()
