"""``python -m bench.wan``: seconds and bytes until a held-out loss, for real nodes behind home lines.

Real nodes, each in its own network namespace, over lines of 100 Mbit/s down and 20 Mbit/s up with a round trip of 30 ms
(:mod:`bench.links.wire`). The same model, data and step size run in several arms: with the run's defaults (int8 at
every step, both moments at every fourth, an Erdős-Rényi graph), and with presets. The target is the mean over nodes of
the own held-out loss that the defaults have after the last visit of their last round. The other arms take more rounds,
if they need them, and the first moment counts at which the mean of all nodes is as low. Time begins when the last node
has measured the start model, so that loading does not count; measurements of the loss do count, in all arms alike.

The model is large for so few tokens per step, so that the line is what an exchange costs, as it is for a large model on
a GPU. All nodes share this machine's processors.
"""

import argparse
import dataclasses
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.harness import Row, parser, write_results
from bench.links.wire import NotPermittedError, Wire
from deca_node.lab.rigs.processes import LocalNodes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.presets import PRESETS

DEFAULTS = "defaults"
ARMS = (DEFAULTS, "wan", "home")
PORT = 4700
RUN_SECONDS_MAX = 900.0
MORE_ROUNDS = 2
"""How many times the rounds of the defaults the other arms may take."""

TARGET_SHARE = 0.1
"""The time to the loss that is aimed for, as a share of the defaults'."""


def main() -> None:
    """Measure, print the table and write ``wan.json``."""
    options = parser("Seconds and bytes until a loss, over home lines.")
    options.set_defaults(threads=1, batch=1, length=16)
    options.add_argument("--nodes", type=int, default=4, help="number of nodes")
    options.add_argument("--mbit", type=float, default=100.0, help="of each line, down")
    options.add_argument("--up-mbit", type=float, default=20.0, help="of each line, up")
    options.add_argument("--rtt-ms", type=float, default=30.0, help="round trip between any two nodes")
    options.add_argument("--hidden", type=int, default=384, help="width of the model")
    options.add_argument("--steps", type=int, default=16, help="gradient steps per visit")
    options.add_argument("--rounds", type=int, default=2, help="of the defaults")
    options.add_argument("--learning-rate", type=float, default=1e-3)
    options.add_argument("--repeats", type=int, default=3, help="turns; the table has medians")
    options.add_argument("--arms", nargs="+", default=list(ARMS), choices=[DEFAULTS, *PRESETS], help="what runs")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.hidden, arguments.steps, arguments.rounds, arguments.repeats = 64, 4, 1, 1
    # SIGTERM too must remove the namespaces.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory() as folder, wire_of(arguments) as wire:
            bench = Bench(Path(folder), wire, arguments)
            turns = [bench.turn(number) for number in range(arguments.repeats)]
    except NotPermittedError as error:
        Console().print(f"bench.wan is skipped: {error}; run it as root on Linux, with iproute2 and /dev/net/tun")
        return
    found = summary(turns)
    show(found, arguments)
    names = ("nodes", "mbit", "up_mbit", "rtt_ms", "hidden", "steps", "rounds", "learning_rate", "batch", "length")
    job = {name: getattr(arguments, name) for name in names} | {"layer_parameters": bench.layer_parameters}
    path = write_results("wan", arguments, {"job": job, "packets_lost": wire.lost, **found, "turns": turns})
    Console().print(f"written to {path}")


def wire_of(arguments: argparse.Namespace) -> Wire:
    """The lines of the command line."""
    return Wire(
        arguments.nodes, 1e6 * arguments.mbit, arguments.rtt_ms / 2000, up_share=arguments.up_mbit / arguments.mbit
    )


def run_settings(arm: str, arguments: argparse.Namespace) -> RunSettings:
    """The run of an arm."""
    common = RunSettings(
        rounds=arguments.rounds,
        inner_steps=arguments.steps,
        final_flush_mixes=3,
        sequence_length=arguments.length,
        batch_size=arguments.batch,
        learning_rate=arguments.learning_rate,
    )
    if arm == DEFAULTS:
        return common
    changes = PRESETS[arm].changes(common)
    return dataclasses.replace(common, rounds=MORE_ROUNDS * arguments.rounds, **changes)


class Bench:
    """The model, the data and the arms' runs."""

    def __init__(self, folder: Path, wire: Wire, arguments: argparse.Namespace) -> None:
        self.folder, self.wire, self.arguments = folder, wire, arguments
        self.names = [f"node-{number + 1}" for number in range(arguments.nodes)]
        self.layer_parameters = 0
        self._prepare()

    def turn(self, number: int) -> Row:
        """All arms once: by arm the curve and, from the defaults' target on, seconds and bytes."""
        curves = {arm: self._run(number, arm) for arm in self.arguments.arms}
        target = curves[DEFAULTS][-1]["loss"]
        found = {arm: reached(curve, target) for arm, curve in curves.items()}
        for arm, row in found.items():
            print(f"turn {number + 1}, {arm}: {row['seconds']} s, {row['megabytes']} MB per node", flush=True)
        return {"target": target, "arms": found, "curves": curves}

    def _run(self, number: int, arm: str) -> list[Row]:
        settings = run_settings(arm, self.arguments)
        folder = self.folder / f"{number}-{arm}"
        folder.mkdir()
        usual = RunSettings()
        changed = {
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(settings)
            if getattr(settings, field.name) != getattr(usual, field.name)
        }
        run = folder / "run.toml"
        run.write_text(
            "".join(f"{name} = {json.dumps(value)}\n" for name, value in (changed | {"seed": number}).items())
        )
        peers = folder / "peers.txt"
        lines = zip(self.names, self.wire.lines, strict=True)
        peers.write_text("".join(f"{name}@{line.address}:{PORT}\n" for name, line in lines))
        with LocalNodes() as nodes:
            for name, line in zip(self.names, self.wire.lines, strict=True):
                flags = {"--peers": peers, "--run": run, "--model": self.folder / "model"}
                flags |= {"--data": self.folder / f"{name}.jsonl", "--threads": self.arguments.threads}
                flags |= {"--eval-every": "activation", "--eval-sequences": 16}
                flags |= {"--max-upload": 0.95 * self.arguments.up_mbit, "--step-timeout-seconds": 60}
                within = ("ip", "netns", "exec", line.namespace)
                # Once for this machine only; twice for any network.
                flags |= {"--insecure": True}
                nodes.start(name, folder / name, flags, verb=("start", "--insecure"), within=within)
            nodes.wait(RUN_SECONDS_MAX)
            return curve([lines_of(node.directory) for node in nodes.nodes])

    def _prepare(self) -> None:
        """Make the contents in another process. This process imports no torch, so that it takes nothing from the
        measurement."""
        job = {"folder": str(self.folder), "names": self.names, "hidden": self.arguments.hidden}
        done = subprocess.run(
            [sys.executable, "-m", "bench.links.content", json.dumps(job)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"the model could not be made:\n{done.stderr[-2000:]}")
        self.layer_parameters = int(done.stdout.split()[-1])


def lines_of(directory: Path) -> list[Row]:
    """A node's records."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def curve(nodes: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """The mean held-out loss of all nodes after every visit with gradients.

    ``seconds`` since the last node has measured the start model until the last one has measured this, ``loss``, and the
    ``megabytes`` that a node has sent by then, in the mean.
    """
    measured = [[line for line in lines if line["kind"] == "eval"] for lines in nodes]
    began = max(lines[0]["time"] for lines in measured)
    trained = max(map(_trained, nodes))
    rows = []
    for at in zip(*measured, strict=True):
        if at[0]["ordinal"] > trained + 1:
            continue
        sent = [_sent_until(lines, one["time"]) for lines, one in zip(nodes, at, strict=True)]
        rows.append(
            {
                "seconds": round(max(one["time"] for one in at) - began, 2),
                "loss": round(statistics.mean(one["loss"] for one in at), 4),
                "megabytes": round(statistics.mean(sent) / 1e6, 2),
            }
        )
    return rows


def _trained(lines: Sequence[Mapping[str, Any]]) -> int:
    """The last step before the final flush, mixes that close a visit included."""
    steps = [line for line in lines if line["kind"] == "step"]
    rounds = max(line["round"] for line in steps if "loss" in line)
    return int(max(line["ordinal"] for line in steps if line["round"] <= rounds))


def _sent_until(lines: Sequence[Mapping[str, Any]], until: float) -> int:
    return max(
        (int(line["bytes_sent"]) for line in lines if line["kind"] == "step" and line["time"] <= until), default=0
    )


def reached(rows: Sequence[Row], target: float) -> Row:
    """The first point of a curve at which the loss is as low as the target; without one, the time is infinite."""
    for row in rows:
        if row["loss"] <= target:
            return row
    return {"seconds": float("inf"), "loss": min(row["loss"] for row in rows), "megabytes": float("inf")}


def summary(turns: Sequence[Row]) -> Row:
    """Medians over turns; ratios to the defaults are taken within each turn."""
    found = {}
    for arm in turns[0]["arms"]:
        rows = [(turn["arms"][arm], turn["arms"][DEFAULTS]) for turn in turns]
        found[arm] = {name: statistics.median(row[name] for row, _ in rows) for name in ("seconds", "megabytes")}
        for name in ("seconds", "megabytes"):
            found[arm][f"{name}_share"] = round(statistics.median(row[name] / usual[name] for row, usual in rows), 4)
    return {"arms": found}


def show(found: Row, arguments: argparse.Namespace) -> None:
    """Print the table."""
    line = f"{arguments.mbit:g}/{arguments.up_mbit:g} Mbit/s, {arguments.rtt_ms:g} ms round trip"
    caption = f"Medians of {arguments.repeats}. The aim is {TARGET_SHARE:g} of the defaults' time."
    table = Table(title=f"{arguments.nodes} nodes, {line}: until the defaults' loss", caption=caption)
    for heading in ("arm", "seconds", "of the defaults'", "MB per node", "of the defaults'"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm, row in found["arms"].items():
        shares = [f"{row[f'{name}_share']:.3f}" for name in ("seconds", "megabytes")]
        table.add_row(arm, f"{row['seconds']:.1f}", shares[0], f"{row['megabytes']:.1f}", shares[1])
    Console().print(table)


if __name__ == "__main__":
    main()
