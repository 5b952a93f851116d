"""The page at ``/``, on which a person watches the run. It is read-only and loads nothing from the internet.

::

    /                        the page, with /dashboard.js and /dashboard.css beside it
    /plotly.js               the drawing code, a file of the Python package plotly
    /v1/history?since=N      curves over steps (deca_node.daemon.status.history)
    /v1/map                  rounds × blocks, and the graph of the members
    /v1/events?last=N        the newest log lines, without the paths of files
"""

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from deca_node.daemon.logs import EventLog
from deca_node.daemon.status.facts import to_json
from deca_node.daemon.status.history import History
from deca_node.daemon.web.server import Handler, json_response

EVENTS_DEFAULT, EVENTS_MAX = 50, 200
SHOWN_LEVELS = frozenset({"info", "warning", "error", "critical"})
DRAWING_CODE_SECONDS = 86_400
"""A browser keeps the drawing code, which is large, this long without asking."""

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Scripts come from the node's own files only. Styles within the page are allowed, because plotly writes some; they
cannot run code or load anything from elsewhere."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

PATHS = re.compile(r"[^\s'\"(]*[^\s\d'\"(]/[^\s'\")]*|[^\s'\"(]*/[^\s\d'\")][^\s'\")]*")
"""A word with a slash, unless digits are on both sides of it: ``round 1/4`` stays."""

_ASSETS = {"/": "dashboard.html", "/dashboard.js": "dashboard.js", "/dashboard.css": "dashboard.css"}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def add_dashboard(app: web.Application, history: History, events: EventLog) -> None:
    """Add the page and its data to an application that has the status already."""

    async def points(request: web.Request) -> web.Response:
        since = _number(request, "since", 0)
        return json_response(to_json(history.points(since)))

    async def run_map(_: web.Request) -> web.Response:
        return json_response(to_json(history.map()))

    async def lines(request: web.Request) -> web.Response:
        last = min(_number(request, "last", EVENTS_DEFAULT), EVENTS_MAX)
        shown = [event for line in events.last(last) if (event := shown_event(line))]
        return json_response(json.dumps(shown, separators=(",", ":")))

    app.add_routes([web.get(path, _file(Path(__file__).with_name(name))) for path, name in _ASSETS.items()])
    app.add_routes([web.get("/plotly.js", _file(plotly_js(), DRAWING_CODE_SECONDS)), web.get("/favicon.ico", _no_icon)])
    data = {"/v1/history": points, "/v1/map": run_map, "/v1/events": lines}
    app.add_routes([web.get(path, handler) for path, handler in data.items()])
    app.on_response_prepare.append(_add_headers)


def plotly_js() -> Path:
    """The drawing code in the package plotly. The package is not imported, which would take a second."""
    found = importlib.util.find_spec("plotly")
    assert found is not None and found.submodule_search_locations, "plotly is among the dependencies"
    return Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


def shown_event(line: str) -> Mapping[str, object] | None:
    """A log line as the page shows it, without the paths of files; None for debug lines."""
    event = json.loads(line)
    if event["level"] not in SHOWN_LEVELS:
        return None
    return {"time": event.get("time"), "level": event["level"], "message": PATHS.sub("(path)", event["message"])}


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise web.HTTPBadRequest(text=f"{name} must be a whole number from 0\n")
    return int(text)


def _file(path: Path, cached_seconds: int = 0) -> Handler:
    """A handler that answers with one file. The file has an ETag, so a browser that has it gets "not modified"."""
    headers = {
        "Content-Type": f"{_TYPES[path.suffix]}; charset=utf-8",
        "Cache-Control": f"private, max-age={cached_seconds}" if cached_seconds else "no-cache",
    }

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=headers)

    return answer


async def _no_icon(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
