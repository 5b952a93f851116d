"""``make fuzz``: each target under the fuzzer for so many minutes, one after another, and a table of what came out.

Corpora stay in ``.fuzz/TARGET/corpus``, so that the next run goes on from there; an input that is a finding is kept in
``.fuzz/TARGET`` as well, and ``python -m tests.fuzz TARGET --again FILE`` runs it once more, by itself.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz import codec
from tests.fuzz.targets import NAMES, TARGETS

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / ".fuzz"
LIMITS = ("-rss_limit_mb=2048", "-timeout=20", "-print_final_stats=1")
LENGTHS = {"codec": 16384}
LENGTH_MAX = 6000
_PROGRESS = re.compile(r"#(\d+)\s+(\w+)\s+(?:cov: (\d+) )?ft: (\d+) corp: (\d+)/\S+.* rss: (\d+)Mb")


def main() -> None:
    """Parse, run, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(NAMES)}; all without one")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--again", type=Path, help="run this one input, without the fuzzer")
    choice = parser.parse_args()
    targets = choice.targets or list(NAMES)
    if unknown := set(targets) - set(NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if choice.again and targets != ["codec"]:
        TARGETS[targets[0]]().run(choice.again.read_bytes())
        print("survived")
        return
    results = [fuzz(name, choice.minutes, choice.again) for name in targets]
    print(table(results))
    sys.exit(any(result["ended"] for result in results))


def fuzz(name: str, minutes: float, again: Path | None = None) -> dict[str, Any]:
    """One target; its figures, which also go into ``.fuzz/TARGET/result.json``."""
    folder = OUT / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    keep(corpus, codec.seeds() if name == "codec" else TARGETS[name]().seeds())
    flags = (*LIMITS, f"-max_len={LENGTHS.get(name, LENGTH_MAX)}", f"-max_total_time={minutes * 60:.0f}")
    figures = folder / "figures.json"
    figures.unlink(missing_ok=True)
    inputs = (f"-artifact_prefix={folder}/", str(again or corpus))
    began = time.monotonic()
    lines = run([*command(name, folder, figures), *flags, *inputs], folder / "log.txt")
    result = {"target": name, "seconds": round(time.monotonic() - began), **read_log(lines)}
    if figures.exists():
        result |= json.loads(figures.read_text())
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def command(name: str, folder: Path, figures: Path) -> list[str]:
    """What runs the fuzzer's loop on a target."""
    if name != "codec":
        return [sys.executable, "-m", "tests.fuzz.worker", name, str(figures)]
    found = importlib.util.find_spec("atheris")
    if found is None or found.origin is None:
        sys.exit("fuzzing needs atheris: make fuzz installs it, or pip install -c constraints.txt 'deca-node[fuzz]'")
    return [str(codec.build(folder, Path(found.origin).parents[1] / codec.LOOP))]


def keep(corpus: Path, seeds: Iterable[bytes]) -> None:
    """Seeds as files, each under a name of its own."""
    for seed in seeds:
        (corpus / f"seed-{hashlib.sha256(seed).hexdigest()[:16]}").write_bytes(seed)


def run(words: Sequence[str], log: Path) -> list[str]:
    """Run it to its end, with its output in ``log``."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as file:
        subprocess.run(
            words,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env=os.environ | threads | {"ASAN_OPTIONS": "quarantine_size_mb=16"},
            check=False,
        )
    return log.read_text(errors="replace").splitlines()


def read_log(lines: Sequence[str]) -> dict[str, Any]:
    """libFuzzer's figures. ``ended`` is what cut the run short, or empty."""
    seen = [found for line in lines if (found := _PROGRESS.match(line))]
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", "\n".join(lines)))
    begun = next((found for found in seen if found[2] == "INITED"), None)
    ended = [line for line in lines if "SUMMARY: " in line or "ERROR: libFuzzer" in line]
    if not stats and not ended:
        ended = lines[-1:] or ["it said nothing"]
    return {
        "execs": int(stats.get("number_of_executed_units", seen[-1][1] if seen else 0)),
        "execs_per_second": int(stats.get("average_exec_per_sec", 0)),
        "coverage": [int(begun[3] or 0) if begun else 0, int(seen[-1][3] or 0) if seen else 0],
        "features": [int(begun[4]) if begun else 0, int(seen[-1][4]) if seen else 0],
        "corpus": int(seen[-1][5]) if seen else 0,
        "rss_mb": [int(begun[6]) if begun else 0, int(seen[-1][6]) if seen else 0],
        "rss_mb_peak": int(stats.get("peak_rss_mb", 0)),
        "ended": ended[0] if ended else "",
    }


def table(results: Iterable[dict[str, Any]]) -> str:
    """One row per target."""
    rows = [
        "| target | execs | per s | coverage | inputs kept | RSS in MB, peak | slowest input | ended by |",
        "|" + "---|" * 8,
    ]
    for r in results:
        (first, last), (low, high) = r["coverage"], r["rss_mb"]
        slowest = f"{1000 * r['slowest_seconds']:.0f} ms" if "slowest_seconds" in r else "-"
        rows.append(
            f"| {r['target']} | {r['execs']:,} | {r['execs_per_second']} | {first} → {last} | {r['corpus']} "
            f"| {low} → {high}, {r['rss_mb_peak']} | {slowest} | {r['ended'] or 'time'} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
