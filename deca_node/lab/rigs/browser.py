"""A headless browser that looks at a page as a person would: Chromium, driven over its DevTools.

Its sockets, profile and process exist only within the ``async with``. The user's own browser is not touched.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from deca_node.protocol.errors import DecaError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0
MESSAGE_BYTES_MAX = 64 << 20
PORT_FILE = "DevToolsActivePort"


class BrowserError(DecaError):
    """The browser did not start, or could not perform a command."""


def chromium() -> str | None:
    """The path of Chromium or a relative of it, or None if there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


POLL = """new Promise((done) => {
    const end = performance.now() + %d;
    const poll = () => {
        let is = false;
        try { is = Boolean(%s) } catch {}
        is || performance.now() > end ? done(is) : setTimeout(poll, 50);
    };
    poll();
})"""


@dataclass(frozen=True)
class Window:
    """The size of a window in CSS pixels, the pixels per CSS pixel (``scale``), and the preferences of its user."""

    width: int
    height: int
    dark: bool = False
    phone: bool = False
    scale: float = 1.0


class Page:
    """One page. ``complaints`` are the console's errors and warnings and all uncaught exceptions; ``requests`` are all
    URLs that the page requested."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._socket = socket
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0

    async def look(self, window: Window) -> None:
        """Show the page in another window from now on."""
        size = {"width": window.width, "height": window.height, "deviceScaleFactor": window.scale}
        await self.call("Emulation.setDeviceMetricsOverride", **size, mobile=window.phone)
        await self.call("Emulation.setTouchEmulationEnabled", enabled=window.phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if window.dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        """Open a URL."""
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str, seconds: float = ANSWER_SECONDS) -> Any:
        """The value of a JavaScript expression or of its promise. Raises BrowserError if it throws."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self.call("Runtime.evaluate", seconds, **asked)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, condition: str, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until a JavaScript condition is true; one that throws is not true yet. Raises BrowserError after a
        while."""
        if not await self.evaluate(POLL % (1000 * seconds, condition), seconds + ANSWER_SECONDS):
            raise BrowserError(f"waited {seconds:g} s for {condition}; the page complains: {self.complaints}")

    async def picture(self) -> bytes:
        """The contents of the window as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def call(self, method: str, seconds: float = ANSWER_SECONDS, **parameters: Any) -> dict[str, Any]:
        """Perform a DevTools command. Raises BrowserError."""
        self._count += 1
        number = self._count
        answering = self._asked[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with _limit(seconds, f"no answer to {method}"):
            answer = await answering
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Take in messages until the browser ends."""
        async for message in self._socket:
            said = json.loads(message.data)
            if waiting := self._asked.pop(said.get("id", 0), None):
                if not waiting.done():
                    waiting.set_result(said)
            else:
                self._note(said.get("method", ""), said.get("params", {}))

    def _note(self, method: str, facts: dict[str, Any]) -> None:
        match method:
            case "Runtime.consoleAPICalled" if facts["type"] in {"error", "warning", "assert"}:
                self.complaints.append(" ".join(str(part.get("value", part)) for part in facts["args"]))
            case "Runtime.exceptionThrown":
                details = facts["exceptionDetails"]
                self.complaints.append(details.get("exception", details).get("description", details["text"]))
            case "Log.entryAdded" if facts["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])


@contextlib.asynccontextmanager
async def new_page(program: str) -> AsyncIterator[Page]:
    """A page in a browser of its own. Raises BrowserError if it does not start."""
    with tempfile.TemporaryDirectory(prefix="deca-browser-", ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--disable-gpu"]
        flags += ["--no-first-run", "--hide-scrollbars", "--disable-background-networking", "--disable-dev-shm-usage"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium needs this if it runs as root, as in containers
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(program, *flags, stdout=quiet, stderr=quiet)
        try:
            port = await _port(Path(profile) / PORT_FILE)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, _attached(session) as page:
                yield page
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _port(file: Path) -> int:
    async with _limit(START_SECONDS, "the browser did not start"):
        while True:
            if port := _read_port(file):
                return port
            await asyncio.sleep(0.05)


def _read_port(file: Path) -> int:
    """The port of DevTools, or 0 until the browser has written it."""
    try:
        return int(file.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return 0


@contextlib.asynccontextmanager
async def _attached(session: aiohttp.ClientSession) -> AsyncIterator[Page]:
    async with session.put("/json/new?about:blank") as answer:
        target = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
    async with session.ws_connect(target, max_msg_size=MESSAGE_BYTES_MAX) as socket:
        page = Page(socket)
        listening = asyncio.ensure_future(page.listen())
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.call(f"{domain}.enable")
            yield page
        finally:
            listening.cancel()
            await asyncio.wait([listening])


@contextlib.asynccontextmanager
async def _limit(seconds: float, sentence: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise BrowserError(sentence) from None
