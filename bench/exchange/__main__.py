"""``python -m bench.exchange``: two nodes send each other 256 MiB of float32 numbers, in many ways.

Raw TCP is the reference. It is compared with the usual alternatives (gloo, hivemind, p2pfl, Flower, each through its
own public calls and from its own environment) and with this project's transport with three codecs. Every contestant
gets the same numbers. The time runs from numbers in memory to the neighbour's numbers in memory, so all processing on
the way counts. The error of the numbers that arrive is measured as well.

Every turn starts new processes for each contestant, one after the other, and warms them up with a checked exchange.
Ratios are taken within a turn before the median, so that a machine that slows down for a while slows down both sides of
a ratio.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.exchange.conduct import Contestant, PartyFailedError, Performance, measure
from bench.exchange.content import ARRAY_ELEMENTS, write_contents
from bench.exchange.environments import CouldNotInstallError, python_of
from bench.harness import MIB, RESULTS, ROOT, Row, write_results

REFERENCE = Contestant("tcp", "raw TCP", "raw_tcp")
CONTESTANTS = (
    REFERENCE,
    Contestant("gloo", "gloo send/recv", "gloo"),
    Contestant("hivemind", "hivemind, 8 bit", "hivemind_averager", environment="hivemind", exchanges=2),
    Contestant("p2pfl", "p2pfl, int8", "p2pfl_grpc", environment="p2pfl", exchanges=2),
    Contestant("flwr", "Flower", "flower", environment="flwr", one_process=True, exchanges=1),
    Contestant("ours-fp32", "deca-node, fp32", "ours", option="fp32"),
    Contestant("ours-int8", "deca-node, int8", "ours", option="int8"),
    Contestant("ours-int8-mix", "deca-node, int8, mixed", "ours", option="int8+mix"),
    Contestant("ours-int4", "deca-node, int4", "ours", option="int4"),
    Contestant("ours-fp32-mtls", "deca-node, fp32, mTLS", "ours", option="fp32", mutual_tls=True),
    Contestant("ours-int8-mtls", "deca-node, int8, mTLS", "ours", option="int8", mutual_tls=True),
)
ARRAY_MIB = ARRAY_ELEMENTS * 4 // MIB

Outcomes = list[Performance | None]


def main() -> None:
    """Measure, print the table and write ``exchange.json``."""
    arguments = parse()
    chosen = tuple(each for each in CONTESTANTS if each is REFERENCE or each.name in arguments.only)
    pythons, failures = environments(chosen, arguments.cache)
    rows = []
    for nodes in arguments.nodes:
        outcomes, failed = compare(chosen, nodes, pythons, arguments)
        rows += [summary(each, nodes, outcomes, failures | failed, arguments.mib) for each in chosen]
    show(rows, arguments)
    job = {name: getattr(arguments, name) for name in ("mib", "repeats", "nodes")}
    Console().print(f"written to {write_results('exchange', arguments, {'job': job, 'rows': rows})}")


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(
        description="Time, bytes, processor time and memory of one exchange of parameters between nodes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = [each.name for each in CONTESTANTS]
    options.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help="contestants")
    options.add_argument("--mib", type=int, default=256, help=f"float32 numbers per node, in MiB; times {ARRAY_MIB}")
    options.add_argument("--nodes", type=int, nargs="+", default=[2, 4], help="two nodes, or a ring of more")
    options.add_argument("--repeats", type=int, default=3, help="turns")
    options.add_argument("--quick", action="store_true", help="16 MiB, two nodes, one turn, to see that it runs")
    options.add_argument("--seed", type=int, default=0, help="seed of the numbers")
    options.add_argument("--cache", type=Path, default=ROOT / ".bench-envs", help="folder of the environments")
    options.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.mib, arguments.nodes, arguments.repeats = 16, [2], 1
    if arguments.mib < ARRAY_MIB or arguments.mib % ARRAY_MIB:
        options.error(f"--mib {arguments.mib} is not a multiple of {ARRAY_MIB}")
    if min(arguments.nodes) < 2:
        options.error("an exchange needs at least two nodes")
    return arguments


def environments(chosen: tuple[Contestant, ...], cache: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Interpreters by contestant, and the reason if there is none."""
    pythons: dict[str, Path] = {}
    failures: dict[str, str] = {}
    with Console(stderr=True).status("") as status:
        for each in chosen:
            status.update(f"installing {each.environment}" if each.environment else "")
            try:
                pythons[each.name] = python_of(each.environment, cache)
            except CouldNotInstallError as problem:
                failures[each.name] = f"could not be installed: {problem}"
    return pythons, failures


def compare(
    chosen: tuple[Contestant, ...], nodes: int, pythons: dict[str, Path], arguments: argparse.Namespace
) -> tuple[dict[str, Outcomes], dict[str, str]]:
    """The figures or the failure of every contestant in each turn. A contestant that failed once is not started
    again."""
    outcomes: dict[str, Outcomes] = {each.name: [] for each in chosen}
    failures: dict[str, str] = {}
    elements = arguments.mib * MIB // 4
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("") as status:
        contents = write_contents(Path(folder), nodes, elements, arguments.seed)
        for turn in range(arguments.repeats):
            for each in chosen:
                status.update(f"{nodes} nodes, turn {turn + 1} of {arguments.repeats}: {each.label}")
                if each.name not in pythons or each.name in failures:
                    continue
                try:
                    outcomes[each.name].append(measure(each, pythons[each.name], contents, elements))
                except PartyFailedError as problem:
                    if each is REFERENCE:
                        raise
                    failures[each.name] = f"failed: {problem}"
    return outcomes, failures


def summary(each: Contestant, nodes: int, outcomes: dict[str, Outcomes], failures: dict[str, str], mib: int) -> Row:
    """Medians over all exchanges. The ratio to raw TCP is taken turn by turn."""
    row: Row = {"contestant": each.name, "label": each.label, "nodes": nodes}
    if each.name in failures:
        return row | {"failure": failures[each.name]}
    own = [outcome for outcome in outcomes[each.name] if outcome]
    usages = [exchange.usage for outcome in own for exchange in outcome.exchanges]
    sent_gigabytes = mib * MIB * links(nodes) / 1e9
    wire = [usage.wire_bytes for usage in usages if usage.wire_bytes is not None]
    reference = [outcome for outcome in outcomes[REFERENCE.name] if outcome]
    shares = [seconds(one) / seconds(other) for one, other in zip(reference, own, strict=True)]
    return row | {
        "seconds": round(statistics.median(seconds(outcome) for outcome in own), 4),
        "seconds_all": [[round(exchange.seconds, 4) for exchange in outcome.exchanges] for outcome in own],
        "share_of_raw_tcp": round(statistics.median(shares), 3),
        "share_of_raw_tcp_all": [round(share, 3) for share in shares],
        "wire_mib": round(statistics.median(wire) / MIB, 1) if wire else None,
        "cpu_seconds_per_gb": round(statistics.median(usage.cpu_seconds for usage in usages) / sent_gigabytes, 3),
        "peak_mib_per_node": round(statistics.median(usage.peak_bytes for usage in usages) / MIB / nodes),
        "relative_error": own[-1].error,
        "facts": own[-1].facts,
    }


def seconds(outcome: Performance) -> float:
    """Median of a turn's exchanges."""
    return statistics.median(exchange.seconds for exchange in outcome.exchanges)


def links(nodes: int) -> int:
    """The number of times that a content is sent on a ring: to every neighbour of every node."""
    return 2 if nodes == 2 else 2 * nodes


def show(rows: list[Row], arguments: argparse.Namespace) -> None:
    """Print the table; it fits a terminal of 80 columns."""
    table = Table(
        title=f"An exchange of {arguments.mib} MiB of float32 numbers between all neighbours",
        caption="x TCP: speed as a share of raw TCP's in the same turn. n: nodes. wire: MiB that crossed loopback. "
        "CPU s: per GB of float32 numbers delivered, all processes. peak: resident MiB per node. "
        "error: relative RMS error of the numbers that arrived.",
    )
    for heading in ("n", "", "seconds", "x TCP", "wire", "CPU s", "peak", "error"):
        table.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    for row in rows:
        if "failure" in row:
            table.add_row(str(row["nodes"]), row["label"], "-", "-", "-", "-", "-", "-")
            continue
        wire = "-" if row["wire_mib"] is None else f"{row['wire_mib']:,.0f}"
        figures = [f"{row['seconds']:.3f}", f"{row['share_of_raw_tcp']:.3f}", wire, f"{row['cpu_seconds_per_gb']:.2f}"]
        error = f"{row['relative_error']:.1e}" if row["relative_error"] else "0"
        table.add_row(str(row["nodes"]), row["label"], *figures, f"{row['peak_mib_per_node']:,}", error)
    console = Console()
    console.print(table)
    for row in rows:
        if "failure" in row:
            console.print(f"{row['label']}, {row['nodes']} nodes: {row['failure']}", style="red", markup=False)


if __name__ == "__main__":
    main()
