"""Write docs/METRICS.md from the metrics themselves; with --check, only say whether it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deca_node.daemon.status.metrics import METRICS  # noqa: E402  (the tool runs from a checkout that is not installed)

PAGE = ROOT / "docs" / "METRICS.md"

TEXT = """\
<!-- Written by tools/write_metrics_reference.py. Change the metrics, not this page. -->

# Metrics and probes

With `http = "127.0.0.1:9640"` (a node setting; empty is off) a node answers HTTP there. It only tells: nothing
can be changed this way. The probes and `/metrics` ask for no password, and the latter says who the peers are and how
the loss stands, so let it listen where only those can reach it who may know that. Everything else there is the
[dashboard](DASHBOARD.md)'s, and asks for a token unless it listens on loopback.

| path | answer |
|---|---|
| `/livez` | 200 as long as the event loop answers, whatever the trainer does. |
| `/startupz` | 200 once the model is loaded, else 503 and the reason. |
| `/readyz` | 200 while the node takes part in the run; 503 while it loads, waits for the first peers or catches up. |
| `/metrics` | The table below, for Prometheus. |
| `/v1/status`, `/v1/members` | What `deca-node status --json` and `deca-node members --json` print. |

The same answers come from the socket in the node's folder (`curl --unix-socket DIR/admin.sock http://node/livez`),
with that setting or without it. On the port for peers the node answers the gRPC health service (`grpc.health.v1`) as
`/readyz` does.

Nodes that are waited for become ready only together. So an orchestrator must start all of them at once, and must not
wait for one to be ready before it starts the next (in Kubernetes: `podManagementPolicy: Parallel`, and
`publishNotReadyAddresses: true` on the headless service).

## Metrics

Times are in seconds, sizes in bytes. A counter starts at 0 with the process. A sample that has no value yet is left
out. Beside these, the `process_*` metrics of the Prometheus client are there on Linux; they tell of the daemon's
process, and not of its trainer's.

| name | type | labels | meaning |
|---|---|---|---|
{rows}
"""


def rows() -> Iterator[str]:
    """One line per metric."""
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def main(arguments: list[str]) -> int:
    """Write the page, or check it; 1 where it is stale."""
    page = TEXT.format(rows="\n".join(rows()))
    if arguments != ["--check"]:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is stale; run python tools/write_metrics_reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
