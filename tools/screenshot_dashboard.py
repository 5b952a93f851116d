"""Takes the pictures of the dashboard in docs/images, from a run of four nodes on this machine, one of which is killed.

::

    docs/images/dashboard-laptop.png   a light screen, with all four nodes at work
    docs/images/dashboard-phone.png    a small dark screen
    docs/images/dashboard-killed.png   after a node was killed

This takes a few minutes, and needs Chromium.
"""

import asyncio
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from deca_node.lab.demo import demo
from deca_node.lab.rigs.browser import Page, Window, chromium, new_page
from deca_node.lab.rigs.processes import LOOPBACK, free_ports

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
RUN = dataclasses.replace(demo.RUN, rounds=6, inner_steps=20, sequence_length=64, final_flush_mixes=8)
RECIPE = dataclasses.replace(demo.RECIPE, steps=10, hidden=64, layers=6)
"""With little training beforehand, so that the run shows progress."""
START_SECONDS, VISIT_SECONDS, LOSS_SECONDS = 300.0, 600.0, 120.0

LAPTOP = Window(1280, 1260)
PHONE = Window(390, 1240, dark=True, phone=True, scale=1.5)
DRAWN = "document.querySelectorAll('.chart .main-svg').length >= {} && ![...dirty].some((id) => seen.has(id))"
PATH = "state.status.position.activation"


def main() -> None:
    """Start the nodes, look at one of them, and kill another."""
    program = chromium()
    if program is None:
        sys.exit("there is no Chromium here")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as started:
        plan = demo.DemoPlan(Path(folder), run=RUN, recipe=RECIPE)
        demo.prepare(plan, lambda *_: None)
        ports = free_ports(plan.nodes)
        for name, port in zip(plan.names, ports, strict=True):
            folder_of = demo.directory_of(plan, name, together=True)
            node = demo.party(plan, name, folder_of, together=True, http=f"{LOOPBACK}:{port}")
            started.enter_context(node)
        asyncio.run(_look(program, f"http://{LOOPBACK}:{ports[0]}/", node.kill))


async def _look(program: str, url: str, kill: Callable[[], None]) -> None:
    async with new_page(program) as page:
        await page.look(LAPTOP)
        await _until_reached(page, url)
        await page.until(f"{PATH} >= 9 && state.status.position.step > 4", VISIT_SECONDS)
        await _take(page, "laptop", 5)
        await page.look(PHONE)
        await page.open(url)
        await _take(page, "phone", 3)
        kill()
        await page.look(LAPTOP)
        await page.open(url)
        await page.until("state.members.some((member) => member.state === 'dead')", LOSS_SECONDS)
        await page.until("state.status.position.step > 4", LOSS_SECONDS)
        await _take(page, "killed", 5)
        print("the page complained of:", page.complaints or "nothing")


async def _until_reached(page: Page, url: str) -> None:
    """Wait for the page. A node that loads its model does not answer yet, and a browser does not retry."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            page.complaints.clear()
            await page.open(url)
            if await page.evaluate("typeof state === 'object'"):
                return
            await asyncio.sleep(1)


async def _take(page: Page, name: str, charts: int) -> None:
    await page.until(DRAWN.format(charts))
    path = IMAGES / f"dashboard-{name}.png"
    picture = await page.picture()
    print(f"{path}: {path.write_bytes(picture) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
