"""``python -m bench.reading``: tokens per second of this project's reader beside ``datasets.map``, turn by turn.

Both read the same JSON Lines with the same tokenizer on the same cores, each in a process of its own, and leave the
tokens on disk. With ``--gigabytes`` a node is started on that much text, in a group that may take ``--limit`` MiB
(:mod:`bench.reading.large`).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.harness import ROOT, Row, parser, write_results
from bench.reading.corpus import USUAL, write_corpus, write_model
from bench.reading.large import run_large

WAYS = ("store", "datasets")


def main() -> None:
    """Measure, print the ratio and write ``reading.json``."""
    options = parser("Tokens per second of the reader and of datasets.map; a node on more data than memory.")
    options.add_argument("--megabytes", type=float, default=200.0, help="text that both ways read")
    options.add_argument("--turns", type=int, default=3, help="times that both ways read it")
    options.add_argument("--gigabytes", type=float, default=0.0, help="text for a node in little memory; 0: none")
    options.add_argument("--limit", type=int, default=2048, help="MiB that this node may take")
    options.add_argument("--folder", type=Path, help="where text and tokens lie while it runs; a temporary one")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.megabytes, arguments.turns = 1.0, 1
    console = Console()
    content: Row = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.turns:
            write_model(folder / "model", arguments.seed, USUAL)
            write_corpus(folder / "text.jsonl", int(arguments.megabytes * 1e6), arguments.seed, USUAL)
            content |= beside(folder, arguments.turns, arguments.threads)
            console.print(said(content))
            (folder / "text.jsonl").unlink()
        if arguments.gigabytes:
            content |= {"large": run_large(folder, arguments.gigabytes, arguments.limit, arguments.seed, console.print)}
    console.print(f"written to {write_results('reading', arguments, content)}")


def beside(folder: Path, turns: int, threads: int) -> Row:
    """Both ways, one after the other, so often; the order alternates."""
    order = [(turn, way) for turn in range(turns) for way in (WAYS if turn % 2 == 0 else WAYS[::-1])]
    rows = [{"turn": turn, **trial(way, folder, threads)} for turn, way in order]
    speeds = {way: [row["tokens"] / row["seconds"] for row in rows if row["way"] == way] for way in WAYS}
    assert len({row["tokens"] for row in rows}) == 1, "both ways make the same number of tokens"
    ratios = [ours / theirs for ours, theirs in zip(*(by_turn(rows, way) for way in WAYS), strict=True)]
    return {
        "trials": rows,
        "tokens_per_second": {way: statistics.median(found) for way, found in speeds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "tokens_per_cpu_second": {
            way: statistics.median(row["tokens"] / row["cpu_seconds"] for row in rows if row["way"] == way)
            for way in WAYS
        },
        "bytes": (folder / "text.jsonl").stat().st_size,
    }


def by_turn(rows: list[Row], way: str) -> list[float]:
    """Tokens per second of a way, by turn."""
    return [row["tokens"] / row["seconds"] for row in sorted(rows, key=lambda row: row["turn"]) if row["way"] == way]


def trial(way: str, folder: Path, threads: int) -> Row:
    """One trial in a new process. Raises RuntimeError with its output where it fails."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "bench.reading.trial", way]
        command += [str(folder / "text.jsonl"), str(folder / "model"), place]
        names = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")
        settings = {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1", **dict.fromkeys(names, str(threads))}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=3600
        )
    if done.returncode:
        raise RuntimeError(f"the trial {way} failed:\n{done.stderr[-2000:]}")
    report: Row = json.loads(done.stdout.splitlines()[-1])
    return report


def said(content: Row) -> str:
    """The result as a sentence."""
    speeds, cpu = content["tokens_per_second"], content["tokens_per_cpu_second"]
    return (
        f"store {speeds['store']:,.0f} tokens/s, datasets.map {speeds['datasets']:,.0f} tokens/s: ratio "
        f"{content['ratio']:.2f} ({min(content['ratios']):.2f} to {max(content['ratios']):.2f}); "
        f"per second of CPU {cpu['store']:,.0f} and {cpu['datasets']:,.0f}: {cpu['store'] / cpu['datasets']:.2f}"
    )


if __name__ == "__main__":
    main()
