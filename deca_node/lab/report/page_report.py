"""A node's page as it last was, in one file: the page that the node serves, with its data inside.

The file loads nothing, and its policy forbids it to. The data comes from the node's folder: status, members, map and
events as the node saved them last, and the curves over steps from ``metrics.jsonl``, which has every step to the end.
"""

import json
from pathlib import Path
from typing import Any

from deca_node.daemon.status.facts import to_json
from deca_node.daemon.status.history import Lines
from deca_node.daemon.web import dashboard
from deca_node.daemon.web.page_file import PAGE
from deca_node.lab.report.report import POLICY, write_text
from deca_node.lab.report.run_report import agreed
from deca_node.protocol.errors import DataError
from deca_node.storage.folder import METRICS
from deca_node.storage.jsons import UNFIT, parse

KEPT = ("status", "members", "map", "events")
METRICS_BYTES_MAX = 1 << 30
"""Only this much of the end of metrics.jsonl is read."""


def has_page(directory: Path) -> bool:
    """Whether the node in this folder saved its page. A node that was killed right after its start did not."""
    return (directory / PAGE).exists()


def write_page_report(path: Path, directory: Path) -> None:
    """Write the page of the node in ``directory``. Raises DataError if the saved page cannot be read, and StorageError
    if the report cannot be written."""
    try:
        kept = parse((directory / PAGE).read_text(encoding="utf-8"))
        # Pages of earlier versions have no view of the whole run.
        told = {name: kept[name] for name in KEPT} | {"run": kept.get("run", [])}
    except (OSError, *UNFIT):
        raise DataError(f"{directory / PAGE} cannot be read; remove it for a report from the metrics alone") from None
    lines = Lines()
    lines.recall(directory / METRICS, METRICS_BYTES_MAX)
    told |= {"history": json.loads(to_json(lines.points())), "agreed": agreed(directory)}
    write_text(path, page_with(told))


def page_with(told: dict[str, Any]) -> str:
    """The node's page with the data inside that it would fetch."""
    folder = Path(dashboard.__file__).parent
    page = (folder / "dashboard.html").read_text(encoding="utf-8")
    style = (folder / "dashboard.css").read_text(encoding="utf-8")
    code = (folder / "dashboard.js").read_text(encoding="utf-8")
    drawing = dashboard.plotly_js().read_text(encoding="utf-8")
    # No text in a script may look like the script's end, and names can be any text.
    answers = json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        '<meta charset="utf-8">': '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<link rel="stylesheet" href="/dashboard.css">': f"<style>\n{style}</style>",
        '<script src="/plotly.js" async></script>': "",
        '<script src="/dashboard.js" defer></script>': "",
        "</body>": f'<script id="told" type="application/json">{answers}</script>\n<script>{code}</script>\n'
        f"<script>{drawing}</script>\n</body>",
    }
    for there, instead in parts.items():
        assert page.count(there) == 1, f"the page has one {there}"
        page = page.replace(there, instead)
    return page
