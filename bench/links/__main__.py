"""``python -m bench.links``: does the exchange hide behind compute on an ordinary line?

Real nodes, each in its own network namespace, over lines of 100 Mbit/s with a round trip of 40 ms
(:mod:`bench.links.wire`). The same steps run in several arms, in turn: every node alone (only compute, all nodes at the
same time, so that they share the machine as in the other arms), and for each codec with ``overlap`` and in
``lockstep``. Every node has its own cores if there are enough.

Gradient and half step take as long, by the clock, as an int4 update takes on the line, as on an accelerator. They are
computed on the processor, from a batch that leaves time to spare, and then wait (``bench/links/pace``). So neither
other programs nor the two nodes on one machine change the time of compute alone. With ``--pace-ms 0`` they do not wait.

Nodes know their line: ``max_upload`` is 0.95 of its rate, so that no queue forms before it. The last arm,
``unlimited``, shows the worth of this: TCP then fills the line's queue, and acknowledgements of incoming data wait
behind outgoing data.

The bench compares the seconds from step to step in the blocks that are decoder layers, without the first steps of each
visit. A visit has 48 steps, as in the paper. In its last step an update has nothing to hide behind, which the mean
shows and the median does not. ``waiting_seconds`` are those without gradient, encoding or mixing. They are the cost of
the line, and the figure that other programs on the processor change least.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.harness import Row, own_cores, parser, write_results
from bench.links.wire import HEADERS_BYTES, MTU_BYTES, NotPermittedError, Wire
from deca_node.lab.rigs.processes import LocalNodes, NodeProcess
from deca_node.protocol.agreed.frames import STATE_BYTES, frame_framing_bytes

ALONE = "alone"
EXCHANGES = ("overlap", "lockstep")
UNLIMITED = "unlimited"
PORT = 4700
SKIPPED_STEPS = 3
"""The first steps of each visit, which contain the keyframe and TCP's slow start."""

WORK = ("compute_seconds", "encode_seconds", "mix_seconds")
"""The work of a step: a gradient and its half step, codes for neighbours, flows and the fold."""

TARGET_RATIO = 1.15
SLOWER_MAX = 1.1
"""The longest that a step alone may take, in times of its pace. Above it the machine is too slow for the batch."""

PACE = Path(__file__).parent / "pace"

INT4_BITS = 4.5
RUN_SECONDS_MAX = 900.0


def main() -> None:
    """Measure, print the table and write ``links.json``."""
    options = parser("Step time over ordinary lines, against compute alone.")
    options.set_defaults(threads=1, batch=4, length=16)
    options.add_argument("--nodes", type=int, default=2, help="number of nodes, all of which are neighbours")
    options.add_argument("--mbit", type=float, default=100.0, help="of each line, each way")
    options.add_argument("--rtt-ms", type=float, default=40.0, help="round trip between any two nodes")
    options.add_argument("--hidden", type=int, default=768, help="width of the model")
    options.add_argument("--steps", type=int, default=48, help="gradient steps per visit")
    options.add_argument("--repeats", type=int, default=3, help="turns")
    options.add_argument("--codecs", nargs="+", default=["int4", "int8"], help="of updates")
    options.add_argument("--signal", default="none", help="moment signals in updates: none, v or mv")
    options.add_argument("--upload", type=float, default=0.95, help="max_upload, of the line's rate; 0: no limit")
    options.add_argument(
        "--pace-ms",
        type=float,
        help="of a gradient and half step; 0: as long as they take (default: an int4 update on the line)",
    )
    arguments = options.parse_args()
    if arguments.quick:
        arguments.hidden, arguments.steps, arguments.repeats, arguments.batch = 128, 6, 1, 1
    # SIGTERM too must remove the namespaces.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory() as folder, wire_of(arguments) as wire:
            bench = Bench(Path(folder), wire, arguments)
            rows = bench.measure()
    except NotPermittedError as error:
        Console().print(f"bench.links is skipped: {error}; run it as root on Linux, with iproute2 and /dev/net/tun")
        return
    found = summary(rows)
    show(found, bench)
    names = ("nodes", "mbit", "rtt_ms", "hidden", "steps", "repeats", "codecs", "signal", "upload", "batch", "length")
    job = {name: getattr(arguments, name) for name in names}
    job |= {"frame_bytes": bench.frame_bytes, "mtu_bytes": MTU_BYTES, "pace_seconds": round(bench.pace_seconds, 4)}
    line = {"transfer_seconds": round(bench.transfer_seconds, 4), "packets_lost": wire.lost}
    path = write_results("links", arguments, {"job": job, **line, **found, "turns": rows})
    Console().print(f"written to {path}")


def wire_of(arguments: argparse.Namespace) -> Wire:
    """The lines of the command line."""
    return Wire(arguments.nodes, 1e6 * arguments.mbit, arguments.rtt_ms / 2000)


class Bench:
    """The model, the data and the settings of all runs, and their measurements."""

    def __init__(self, folder: Path, wire: Wire, arguments: argparse.Namespace) -> None:
        self.folder, self.wire, self.arguments = folder, wire, arguments
        self.names = [f"node-{number + 1}" for number in range(arguments.nodes)]
        self._prepare()
        self.arms = [ALONE, *(f"{exchange} {codec}" for codec in arguments.codecs for exchange in EXCHANGES)]
        self.arms += [f"{self.arms[1]} {UNLIMITED}"] if arguments.upload else []
        self._runs = itertools.count(1)

    @property
    def transfer_seconds(self) -> float:
        """Seconds until one layer's update has reached every neighbour, TCP's headers included."""
        nbytes = self.frame_bytes + frame_framing_bytes(1, 1, self.frame_bytes)
        nbytes += HEADERS_BYTES * -(-nbytes // MTU_BYTES)
        neighbours = len(self.names) - 1
        return 8 * neighbours * nbytes / self.wire.bits_per_second + self.wire.seconds_one_way

    @property
    def pace_seconds(self) -> float:
        """Seconds of gradient and half step by the clock. 0: as long as they take."""
        given = self.arguments.pace_ms
        return self.transfer_seconds if given is None else given / 1000

    def measure(self) -> list[Row]:
        """One row per turn and arm, in turn, so that other work of the machine affects all arms alike."""
        # Alone once more between the others, since the load of a machine changes within a minute.
        arms = (ALONE, self.arms[1], ALONE, *self.arms[2:])
        return [self._row(turn, arm) for turn in range(self.arguments.repeats) for arm in arms]

    def _row(self, turn: int, arm: str) -> Row:
        steps = self.run(arm)
        names = ("step_seconds", *WORK, "waiting_seconds")
        found = {name: statistics.median(step.get(name, 0.0) for step in steps) for name in names}
        found["step_seconds_mean"] = statistics.mean(step["step_seconds"] for step in steps)
        step, compute, waiting = (1000 * found[f"{name}_seconds"] for name in ("step", "compute", "waiting"))
        print(
            f"turn {turn + 1}, {arm}: {step:.0f} ms a step, {compute:.0f} of them computing, {waiting:.0f} waiting",
            flush=True,
        )
        return {"turn": turn, "arm": arm, **{name: round(found[name], 4) for name in found}}

    def run(self, arm: str) -> list[Row]:
        """One run of all nodes. Returns each node's records of the steps that count."""
        exchange, codec, *unlimited = ("lockstep", "int4") if arm == ALONE else arm.split()
        label = f"{next(self._runs)}-{exchange}"
        settings = {
            "rounds": 1,
            "inner_steps": self.arguments.steps,
            "flush_mixes": 1,
            "final_flush_mixes": 3,
            "sequence_length": self.arguments.length,
            "batch_size": self.arguments.batch,
            "learning_rate": 1e-5,
            "topology": "full",
            "codec": codec,
            "signal": self.arguments.signal,
            "exchange": exchange,
        }
        upload = 0.0 if unlimited else self.arguments.upload * self.arguments.mbit
        run = self.folder / f"{label}.toml"
        run.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
        with LocalNodes() as nodes:
            for number in range(len(self.names)):
                nodes.nodes.append(self._start(number, arm == ALONE, upload, run, self.folder / label))
            nodes.wait(RUN_SECONDS_MAX)
            return [line for node in nodes.nodes for line in layer_steps(node.directory)]

    def _start(self, number: int, alone: bool, upload: float, run: Path, folder: Path) -> NodeProcess:
        line, name = self.wire.lines[number], self.names[number]
        folder.mkdir(exist_ok=True)
        peers = folder / (f"peers-{name}.txt" if alone else "peers.txt")
        listed = [number] if alone else range(len(self.names))
        peers.write_text("".join(f"{self.names[i]}@{self.wire.lines[i].address}:{PORT}\n" for i in listed))
        flags = {"--name": name, "--dir": folder / name, "--peers": peers, "--run": run}
        flags |= {"--model": self.folder / "model", "--data": self.folder / f"{name}.jsonl"}
        flags |= {"--threads": self.arguments.threads, "--eval-sequences": 1, "--max-upload": upload}
        # Figures before and after are of this class; the default is another since.
        flags |= {"--trainer-priority": "idle"}
        words = [str(word) for pair in flags.items() for word in pair]
        command = ["ip", "netns", "exec", line.namespace, sys.executable, "-m", "deca_node", "start"]
        log = folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--insecure", "--insecure", *words],
                env=os.environ | self._paced(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        os.sched_setaffinity(process.pid, own_cores(number, len(self.names)))
        return NodeProcess(name, folder / name, log, process)

    def _paced(self) -> dict[str, str]:
        """The environment of a trainer, which makes its steps take their time."""
        if not self.pace_seconds:
            return {}
        # The module imports torch before the trainer can set its number of threads.
        threads = {"OMP_NUM_THREADS": str(self.arguments.threads)}
        path = os.pathsep.join(filter(None, (str(PACE), os.environ.get("PYTHONPATH"))))
        return {"PYTHONPATH": path, "LINKS_PACE_SECONDS": str(self.pace_seconds), **threads}

    def _prepare(self) -> None:
        """Make the contents in another process. This process imports no torch, so that it takes nothing from the
        measurement."""
        job = {"folder": str(self.folder), "names": self.names, "hidden": self.arguments.hidden}
        done = subprocess.run(
            [sys.executable, "-m", "bench.links.content", json.dumps(job)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"the model could not be made:\n{done.stderr[-2000:]}")
        elements = int(done.stdout.split()[-1])
        self.frame_bytes = round(elements * INT4_BITS / 8) + STATE_BYTES


def layer_steps(directory: Path) -> list[Row]:
    """The records of steps with a gradient, of blocks after the embedding, once a visit runs evenly."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        line | {"waiting_seconds": line["step_seconds"] - sum(line.get(name, 0.0) for name in WORK)}
        for line in lines
        if line["kind"] == "step" and "loss" in line and line["block"] > 0 and line["inner"] >= SKIPPED_STEPS
    ]


def summary(rows: list[Row]) -> Row:
    """Medians over turns. Ratios are taken within each turn."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    over_alone = {
        name: {arm: _over_alone(rows, arm, name) for arm in arms} for name in ("step_seconds", "step_seconds_mean")
    }

    def median(by_turn: list[float], digits: int) -> float:
        return round(statistics.median(by_turn), digits)

    return {
        "step_seconds": {arm: median(_by_turn(rows, arm, "step_seconds"), 4) for arm in arms},
        "waiting_seconds": {arm: median(_by_turn(rows, arm, "waiting_seconds"), 4) for arm in arms},
        "over_alone": {arm: median(over_alone["step_seconds"][arm], 3) for arm in arms},
        "mean_over_alone": {arm: median(over_alone["step_seconds_mean"][arm], 3) for arm in arms},
        "over_alone_all": {arm: [round(r, 3) for r in over_alone["step_seconds"][arm]] for arm in arms},
        "mean_over_alone_all": {arm: [round(r, 3) for r in over_alone["step_seconds_mean"][arm]] for arm in arms},
    }


def _by_turn(rows: list[Row], arm: str, figure: str) -> list[float]:
    turns = range(rows[-1]["turn"] + 1)
    return [statistics.mean(r[figure] for r in rows if (r["turn"], r["arm"]) == (turn, arm)) for turn in turns]


def _over_alone(rows: list[Row], arm: str, figure: str) -> list[float]:
    alone = _by_turn(rows, ALONE, figure)
    return [mine / its for mine, its in zip(_by_turn(rows, arm, figure), alone, strict=True)]


def show(found: Row, bench: Bench) -> None:
    """Print the table."""
    given = bench.arguments
    table = Table(
        title=f"{given.nodes} nodes, {given.mbit:g} Mbit/s, {given.rtt_ms:g} ms round trip",
        caption=f"An update in int4 of {bench.frame_bytes / 1e6:.1f} MB takes "
        f"{1000 * bench.transfer_seconds:.0f} ms on the line. The aim for overlap with it is {TARGET_RATIO} times "
        "compute alone. Milliseconds are medians over steps, ratios medians over turns.",
    )
    for heading in ("steps", "ms per step", "of them waiting", "over compute alone", "in the mean"):
        table.add_column(heading, justify="left" if heading == "steps" else "right")
    for arm, seconds in found["step_seconds"].items():
        ratios = [f"{found[name][arm]:.2f}" for name in ("over_alone", "mean_over_alone")]
        table.add_row(arm, f"{1000 * seconds:.0f}", f"{1000 * found['waiting_seconds'][arm]:.0f}", *ratios)
    Console().print(table)
    alone, pace = found["step_seconds"][ALONE], bench.pace_seconds
    if pace and alone > SLOWER_MAX * pace:
        print(f"A step alone took {alone / pace:.2f} times its pace: this machine needs a smaller --batch.")


if __name__ == "__main__":
    main()
