"""Writes docs/METRICS.md from the metrics; with --check, only says whether the page is up to date."""

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

With the node setting `http = "127.0.0.1:9640"` a node answers HTTP at that address (empty: no HTTP). Everything there
is read-only. The probes and `/metrics` need no token, and `/metrics` shows the peers and the loss: choose an address
that only allowed readers can reach. The other paths belong to the [dashboard](DASHBOARD.md) and need a token, except on
a loopback address.

| path | answer |
|---|---|
| `/livez` | 200 as long as the event loop answers, whatever the trainer does. |
| `/startupz` | 200 once the model is loaded, else 503 and the reason. |
| `/readyz` | 200 while the node takes part in the run; 503 while it loads, waits for the first peers or catches up. |
| `/metrics` | The table below, for Prometheus. |
| `/v1/status`, `/v1/members` | What `deca-node status --json` and `deca-node members --json` print. |

The socket in the node's folder gives the same answers (`curl --unix-socket DIR/admin.sock http://node/livez`), also
without that setting. On the port for peers, the gRPC health service (`grpc.health.v1`) gives the answer of `/readyz`.

The nodes that a run waits for become ready together. So an orchestrator must start all of them at once, and must not
wait until one is ready before it starts the next (in Kubernetes: `podManagementPolicy: Parallel`, and
`publishNotReadyAddresses: true` on the headless service).

## Metrics

Times are in seconds, sizes in bytes. A counter starts at 0 with the process. A metric without a value yet is left out.
On Linux there are also the `process_*` metrics of the Prometheus client, about the daemon's process and not about its
trainer.

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
    """Write the page, or check it. Returns 1 if it is stale."""
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
