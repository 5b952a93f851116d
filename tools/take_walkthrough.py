"""Follows docs/WALKTHROUGH.md as a person would, and takes its pictures and its terminal output.

::

    docs/images/walk-moving.png     north's page, with all four nodes at work
    docs/images/walk-killed.png     the same page after east was killed
    docs/images/walk-back.png       east's page after its restart
    docs/images/walk-complete.png   north's page when the run is complete, on a phone

This takes some minutes, and needs Chromium. The output of the commands goes to standard output.
"""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from deca_node.daemon.settings.sources import changed_as_toml
from deca_node.lab.demo import testbed
from deca_node.lab.rigs.browser import BrowserError, Page, Window, chromium, new_page
from deca_node.lab.rigs.processes import LOOPBACK

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
FOLDER = Path("deca-testbed")
RUN = dataclasses.replace(testbed.RUN, rounds=3)
"""Shorter than the run of a testbed, and otherwise the same."""
STAGE_SECONDS = 1500.0

LAPTOP, NIGHT = Window(1280, 1010), Window(1280, 1010, dark=True)
PHONE = Window(390, 1100, dark=True, phone=True, scale=1.5)
DRAWN = (
    "document.querySelectorAll('.chart .main-svg').length >= 2 && ![...dirty].some((id) => seen.has(id))"
    " && document.getElementById('phase').textContent !== 'no answer'"
)


async def main() -> None:
    """Do every stage, in a new folder."""
    program = chromium()
    if program is None:
        sys.exit("there is no Chromium here")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / FOLDER).mkdir()
        (Path(place) / FOLDER / "run.toml").write_text(changed_as_toml(RUN), encoding="utf-8")
        started = [spawn(place, "demo", "--testbed")]
        try:
            async with new_page(program) as page:
                await walk(place, page, started)
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(STAGE_SECONDS)


async def walk(place: str, page: Page, started: list["subprocess.Popen[bytes]"]) -> None:
    """The stages. ``started`` collects the processes that are to be ended."""
    await look(page, "north", LAPTOP, "state.status.position.round >= 2 && state.status.position.step > 6")
    await take(page, "moving")
    tell(place, "status", "--dir", str(FOLDER / "north"))

    victim = int((Path(place) / FOLDER / "east" / "lock").read_text())
    os.kill(victim, signal.SIGKILL)
    print(f"$ kill -9 {victim}", flush=True)
    await page.until("!document.getElementById('gone').hidden && state.status.position.step > 6", STAGE_SECONDS)
    await take(page, "killed")
    tell(place, "status", "--dir", str(FOLDER / "north"))
    tell(place, "members", "--dir", str(FOLDER / "north"))

    started.append(spawn(place, "start", "--run", str(FOLDER / "run.toml"), "--config", str(FOLDER / "east.toml")))
    back = (
        "state.status.phase === 'visiting' && state.map.rows.join('').includes('f') && state.status.position.step > 6"
    )
    await look(page, "east", NIGHT, back)
    await take(page, "back")
    tell(place, "events", "--dir", str(FOLDER / "east"), "--last", "14")

    await look(page, "north", PHONE, "state.status.phase === 'staying'")
    await take(page, "complete")
    tell(place, "status", "--dir", str(FOLDER / "north"))
    tell(place, "export", "my-model", "--dir", str(FOLDER / "north"))
    tell(place, "report", str(FOLDER / "north"))
    print("the pages complained of:", page.complaints or "nothing")


def spawn(place: str, *words: str) -> "subprocess.Popen[bytes]":
    """Start a command that keeps running."""
    return subprocess.Popen([sys.executable, "-m", "deca_node", *words], cwd=place, stderr=subprocess.DEVNULL)


def tell(place: str, *words: str) -> None:
    """Run a command, and print its output."""
    print(f"\n$ deca-node {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "deca_node", *words], cwd=place, check=True)


async def look(page: Page, name: str, window: Window, condition: str) -> None:
    """Open a node's page, and wait until it answers and a condition is true."""
    await page.look(window)
    port = testbed.HTTP_PORT + testbed.NAMES.index(name)
    async with asyncio.timeout(STAGE_SECONDS):
        while True:
            await page.open(f"http://{LOOPBACK}:{port}/")
            try:
                await page.until("state.status !== null", 5)
            except BrowserError:
                continue  # The node still loads, and a browser does not retry.
            break
    page.complaints.clear()
    await page.until(condition, STAGE_SECONDS)


async def take(page: Page, name: str) -> None:
    """Take a picture of the page."""
    await page.until(DRAWN)
    path = IMAGES / f"walk-{name}.png"
    print(f"{path.name}: {path.write_bytes(await page.picture()) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
