"""The dashboard: its files, what it may load, its data, and who may read it."""

import asyncio
import base64
import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deca_node.daemon.logs import EventLog
from deca_node.daemon.settings.address import Address
from deca_node.daemon.status.history import EVALUATIONS_MAX, POINTS_MAX
from deca_node.daemon.status.lives import next_life
from deca_node.daemon.status.progress import progress_line
from deca_node.daemon.web import dashboard
from deca_node.daemon.web.dashboard import add_dashboard, plotly_js, shown_event
from deca_node.daemon.web.guard import guard, read_token
from deca_node.daemon.web.server import Server, application
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import SettingsError
from tests.daemon.status.test_book import RUN, Desk
from tests.daemon.web.fake_admin import STATUS, FakeAdmin

TOKEN = "0123456789abcdef"
Talk = Callable[[aiohttp.ClientSession], Awaitable[None]]
FOLDER = Path(dashboard.__file__).parent


def talk(what: Talk, host: str = "127.0.0.1", token_file: str = "", events: EventLog | None = None) -> None:
    """Serve on loopback as if bound to ``host``."""

    async def life() -> None:
        app = application(FakeAdmin())
        app.middlewares.append(guard(host, token_file))
        add_dashboard(app, begun().book.history, events or EventLog())
        server = Server(app)
        bound = await server.listen_tcp(Address("127.0.0.1", 0))
        try:
            async with aiohttp.ClientSession(f"http://{bound}") as session:
                await what(session)
        finally:
            await server.close()

    asyncio.run(life())


def begun(**sources: Any) -> Desk:
    desk = Desk(**sources)
    desk.begin()
    return desk


async def status_of(session: aiohttp.ClientSession, path: str, **headers: str) -> int:
    async with session.get(path, headers=headers) as response:
        return response.status


# --- the page ---------------------------------------------------------------------------------------


class Inventory(HTMLParser):
    """Everything that a page has a browser load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [value for name in ("src", "href") if (value := given.get(name)) and not value.startswith("#")]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self._script = tag in {"script", "style"}

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)


def test_the_page_loads_its_own_files_only_and_has_no_code_within() -> None:
    inventory = Inventory()
    inventory.feed((FOLDER / "dashboard.html").read_text())
    assert inventory.loaded == ["/dashboard.css", "/plotly.js", "/dashboard.js"]
    assert inventory.inline == []
    for name in ("dashboard.js", "dashboard.css"):
        assert "://" not in (FOLDER / name).read_text()
    assert "innerHTML" not in (FOLDER / "dashboard.js").read_text()


def test_every_file_comes_with_a_strict_policy() -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        for path in ("/", "/dashboard.js", "/dashboard.css", "/v1/status", "/v1/history", "/v1/map", "/v1/events"):
            async with session.get(path) as response:
                assert response.status == 200, path
                policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
                assert policy["default-src"] == "'none'"
                assert policy["script-src"] == "'self'"
                assert policy["connect-src"] == "'self'"
                assert response.headers["X-Content-Type-Options"] == "nosniff"

    talk(look)


def test_the_drawing_code_is_fetched_once() -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        async with session.get("/plotly.js") as response:
            assert response.content_type == "text/javascript"
            assert int(response.headers["Content-Length"]) == plotly_js().stat().st_size
            assert "max-age" in response.headers["Cache-Control"]
            tag = response.headers["ETag"]
        assert await status_of(session, "/plotly.js", **{"If-None-Match": tag}) == 304

    talk(look)


def test_the_package_plotly_is_not_imported() -> None:
    code = "import sys, deca_node.daemon.web.dashboard as d; d.plotly_js().stat(); sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what it tells ----------------------------------------------------------------------------------


def test_history_and_map_as_json() -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        async with session.get("/v1/history?since=0") as response:
            assert (await response.json())["evaluations"] == [[0, 3.5, "start"]]
        async with session.get("/v1/map") as response:
            told = await response.json()
        assert told["blocks"] == ["embedding", "head"]
        assert told["rows"] == ["..", "..", ".."]
        assert (told["members"], told["edges"]) == (["north", "south"], [[0, 1, 0.5]])
        for odd in ("x", "-1", "1.5", "9" * 20, "²"):
            assert await status_of(session, f"/v1/history?since={odd}") == 400
            assert await status_of(session, f"/v1/events?last={odd}") == 400

    talk(look)


def test_events_are_told_without_paths_and_without_debug_lines() -> None:
    events = EventLog()
    for level, message in ((logging.INFO, "peer south is here"), (logging.DEBUG, "a detail")):
        events.emit(logging.LogRecord("deca", level, "", 0, message, (), None))

    async def look(session: aiohttp.ClientSession) -> None:
        async with session.get("/v1/events?last=50") as response:
            assert [event["message"] for event in await response.json()] == ["peer south is here"]
        async with session.get("/v1/events?last=0") as response:
            assert await response.json() == []

    talk(look, events=events)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/home/ann/wards.jsonl line 3: no text", "(path) line 3: no text"),
        ("the data at 'data/wards.jsonl' may not be read", "the data at '(path)' may not be read"),
        ("the tuned model is in ~/deca-data/north/final", "the tuned model is in (path)"),
        ("(in ./out/north)", "(in (path))"),
        ("round 1/4  block 2/26  step 50/50  loss 2.5000", "round 1/4  block 2/26  step 50/50  loss 2.5000"),
        (progress_line(STATUS), progress_line(STATUS)),
    ],
)
def test_paths_are_left_out(message: str, shown: str) -> None:
    event = shown_event(json.dumps({"time": 1.0, "level": "info", "message": message, "path": "/secret"}))
    assert event == {"time": 1.0, "level": "info", "message": shown}


# --- to whom ----------------------------------------------------------------------------------------

GUARDED = ("/", "/plotly.js", "/v1/status", "/v1/members", "/v1/run", "/v1/history", "/v1/map", "/v1/events")
OPEN = ("/livez", "/readyz", "/startupz", "/metrics")


def test_on_loopback_this_machine_reads_and_a_page_from_elsewhere_does_not() -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        assert await status_of(session, "/v1/status") == 200
        for name in ("localhost:9640", "[::1]:9640", "north.localhost"):
            assert await status_of(session, "/v1/status", Host=name) == 200
        for name in ("rebound.example:9640", "127.0.0.1.example"):
            assert [await status_of(session, path, Host=name) for path in GUARDED] == [403] * len(GUARDED)
            assert [await status_of(session, path, Host=name) for path in OPEN] == [200] * len(OPEN)

    talk(look)


def test_elsewhere_only_probes_and_metrics_answer_without_a_token() -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        assert [await status_of(session, path) for path in GUARDED] == [403] * len(GUARDED)
        assert [await status_of(session, path) for path in OPEN] == [200] * len(OPEN)

    talk(look, host="0.0.0.0")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_requests_with_the_token_are_answered(host: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    good = [f"Bearer {TOKEN}", "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()]
    bad = ["", "Bearer", f"Bearer {TOKEN}x", "Bearer ²", f"Digest {TOKEN}", "Basic ???", "Basic " + TOKEN]

    async def look(session: aiohttp.ClientSession) -> None:
        async with session.get("/") as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
        for path in GUARDED:
            assert [await status_of(session, path, Authorization=shown) for shown in good] == [200, 200]
            assert {await status_of(session, path, Authorization=shown) for shown in bad} == {401}
        assert [await status_of(session, path) for path in OPEN] == [200] * len(OPEN)

    talk(look, host, str(tmp_path / "token"))


def test_everybody_reads_if_http_token_is_none() -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        assert await status_of(session, "/v1/status", Host="node.example") == 200

    talk(look, "0.0.0.0", "none")


def test_a_token_that_cannot_be_read_or_could_be_guessed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"http_token: .* cannot be read"):
        read_token(str(tmp_path / "missing"))
    (tmp_path / "token").write_text("short")
    with pytest.raises(SettingsError, match="fewer than 16 characters"):
        read_token(str(tmp_path / "token"))


# --- history ----------------------------------------------------------------------------------------


def steps(desk: Desk, count: int, first: int = 0, **figures: float) -> None:
    """Observe ``count`` steps. Only their number matters, not their place in the run."""
    for number in range(first, first + count):
        step = Step(*divmod(number % 16, 4))
        desk.observe(e.HalfStepped(step, None, {"loss": float(number), **figures}))
        desk.observe(e.Mixed(step, {}))


def test_a_page_that_asks_again_gets_the_new_points() -> None:
    desk = begun()
    history = desk.book.history
    steps(desk, 5)
    everything = history.points()
    assert (everything.whole, everything.next) == (True, 5)
    steps(desk, 2, first=5)
    news = history.points(everything.next)
    assert (news.whole, list(news.columns["loss"]), news.next) == (False, [5.0, 6.0], 7)
    assert not any(history.points(news.next).columns.values())
    assert history.points(99).whole


def test_a_long_run_is_thinned_and_its_mean_kept() -> None:
    desk, count = begun(), 5 * POINTS_MAX
    history = desk.book.history
    seen = 0
    held: list[float | None] = []
    for _ in range(100):
        steps(desk, count // 100, first=seen)
        seen += count // 100
        news = history.points(len(held) * history.points().stride if held else 0)
        held = list(news.columns["loss"]) if news.whole else held + list(news.columns["loss"])
        assert len(held) <= POINTS_MAX
    whole = history.points()
    assert held == whole.columns["loss"]
    assert POINTS_MAX // 2 <= len(held) <= POINTS_MAX
    assert {len(column) for column in whole.columns.values()} == {len(held)}
    covered = len(held) * whole.stride
    assert sum(value for value in held if value is not None) / len(held) == pytest.approx((covered - 1) / 2, rel=1e-3)
    assert count - covered < whole.stride


def test_evaluations_are_bounded_too() -> None:
    history = begun().book.history
    for number in range(3 * EVALUATIONS_MAX):
        history.observe(e.Evaluated(f"round {number}", 1.0, 10))
    history.observe(e.Evaluated("odd", float("nan"), 10))
    told = history.points().evaluations
    assert len(told) <= EVALUATIONS_MAX
    assert told[-1][2] == f"round {3 * EVALUATIONS_MAX - 1}"


def test_the_rest_of_a_step_was_waiting() -> None:
    traffic = {"south": {"sent.update": 100, "sent.keyframe": 50, "received.update": 7}}
    desk = begun(traffic=lambda: traffic)
    history = desk.book.history
    desk.now += 2.0
    desk.observe(e.HalfStepped(Step(0, 0), None, {"compute_seconds": 0.5, "encode_seconds": 0.25}))
    desk.observe(e.Mixed(Step(0, 0), {"mix_seconds": 0.25, "consensus_distance": float("inf")}))
    told = {name: value for name, (value,) in history.points().columns.items()}
    assert told["wait_seconds"] == 1.0
    assert told["consensus_distance"] is None
    assert (told["sent_bytes"], told["received_bytes"]) == (150.0, 7.0)


def test_a_restarted_node_shows_the_points_in_its_metrics_file(tmp_path: Path) -> None:
    line = {"kind": "step", "time": 1.0, "ordinal": 0, "loss": 3.0, "step_seconds": 1.0, "bytes_received": 0}
    lines = [
        json.dumps({"kind": "eval", "time": 1.0, "ordinal": 0, "loss": 3.25, "when": "start"}),
        json.dumps({**line, "bytes_sent": 100}),
        "{broken",
        json.dumps({**line, "ordinal": 1, "bytes_sent": 10}),
        json.dumps({"kind": "step"}),
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    life = next_life(tmp_path / "metrics.jsonl")
    desk = begun(traffic=lambda: {"south": {"sent.update": 5}}, life=life)
    desk.book.history.recall(tmp_path / "metrics.jsonl")
    desk.step(0)
    told = desk.book.history.points()
    assert (list(told.columns["ordinal"]), list(told.columns["sent_bytes"])) == ([0, 1, 0], [100.0, 110.0, 115.0])
    assert (0, 3.25, "start") in told.evaluations
    desk.book.history.recall(tmp_path / "missing")


def test_the_map_tells_how_every_visit_was_done() -> None:
    desk = Desk()
    assert desk.book.history.map().rows == ()
    desk.begin()
    desk.book.history.observe(e.Adopted(Step(3, 0)))
    desk.node.state.next = Step(4, 0)
    told = desk.book.history.map()
    assert (told.rounds, told.first) == (RUN.rounds, 0)
    assert told.rows == ("ff", "fd", "..")
