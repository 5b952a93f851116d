"""Takes the pictures of the page and of the reports in docs/images, from a testbed of four nodes on this machine.

::

    dashboard-laptop, -dark, -phone     north's page, with all four nodes at work
    dashboard-killed                    north's page after east was killed
    dashboard-run, -run-dark, -run-phone    the view of the whole run on that page
    report-node-light, -dark, -phone    east's report: it was killed and brought back
    report-run-light, -dark, -phone     the comparison of all four; west was stopped before the end

This takes some minutes, and needs Chromium. Phones have a dark screen.
"""

import asyncio
import dataclasses
import signal
import sys
import tempfile
import time
from pathlib import Path

from deca_node.lab.demo import testbed
from deca_node.lab.report.page_report import write_page_report
from deca_node.lab.report.run_report import read_node, write_run_report
from deca_node.lab.rigs.browser import Page, Window, chromium, new_page
from deca_node.lab.rigs.processes import LocalNodes, NodeProcess

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
RUN = dataclasses.replace(testbed.RUN, rounds=4, inner_steps=10, final_flush_mixes=4)
START_SECONDS, STAGE_SECONDS = 600.0, 1500.0

LAPTOP, NIGHT = Window(1280, 1260), Window(1280, 1260, dark=True)
PHONE = Window(390, 1240, dark=True, phone=True, scale=1.5)
LOOKS = {"light": LAPTOP, "dark": NIGHT, "phone": PHONE}
RUN_VIEWS = {
    "dashboard-run": Window(1280, 260),
    "dashboard-run-dark": Window(1280, 260, dark=True),
    "dashboard-run-phone": Window(390, 760, dark=True, phone=True, scale=1.5),
}
DRAWN = (
    "document.querySelectorAll('.chart .main-svg').length >= {} && ![...dirty].some((id) => seen.has(id))"
    " && document.getElementById('phase').textContent !== 'no answer'"
)
SHARE = "state.status.position.done / state.status.position.total"


def main() -> None:
    """Start the nodes, look at one of them, kill another and bring it back, stop a third, and write the reports."""
    program = chromium()
    if program is None:
        sys.exit("there is no Chromium here")
    with tempfile.TemporaryDirectory() as folder, LocalNodes() as nodes:
        bed = testbed.prepare(Path(folder), RUN)
        testbed.start(bed, nodes)
        asyncio.run(_look(program, bed, nodes))


async def _look(program: str, bed: testbed.Testbed, nodes: LocalNodes) -> None:
    of = {node.name: node for node in nodes.nodes}
    url = bed.page("north")
    async with new_page(program) as page:
        await page.look(LAPTOP)
        await _until_reached(page, url)
        await page.until(f"{SHARE} > 0.2 && state.status.position.step > 4", STAGE_SECONDS)
        for name, window in {"laptop": LAPTOP, "dark": NIGHT, "phone": PHONE}.items():
            await page.look(window)
            await page.open(url)
            await _take(page, f"dashboard-{name}", 2)
        of["east"].process.send_signal(signal.SIGKILL)
        await page.look(LAPTOP)
        await page.open(url)
        await page.until("state.members.some((member) => member.state === 'dead')", STAGE_SECONDS)
        await page.until(f"state.status.position.step > 4 && {SHARE} > 0.35", STAGE_SECONDS)
        await _take(page, "dashboard-killed", 4)
        for name, window in RUN_VIEWS.items():
            await page.look(window)
            await page.evaluate("document.getElementById('whole').scrollIntoView()")
            await _write(page, name)
        east = nodes.start("east", bed.folder / "east", _flags(bed, "east"))
        await page.until(f"{SHARE} > 0.75", STAGE_SECONDS)
        of["west"].process.send_signal(signal.SIGTERM)
        await page.until("state.status.phase === 'staying'", STAGE_SECONDS)
        await page.open("about:blank")
        _end(of["north"], of["south"], of["west"], east)
        await _reports(page, bed)
        print("the page complained of:", page.complaints or "nothing")


def _flags(bed: testbed.Testbed, name: str) -> dict[str, object]:
    return {"--run": bed.folder / "run.toml", "--config": bed.folder / f"{name}.toml"}


def _end(*nodes: NodeProcess) -> None:
    """East may still catch up when north is done, so it gets time to finish by itself."""
    limit = time.monotonic() + STAGE_SECONDS
    while not all((node.directory / "final").is_dir() for node in nodes if node.name != "west"):
        if time.monotonic() > limit:
            sys.exit("the run did not come to its end")
        time.sleep(1)
    for node in nodes:
        if node.process.poll() is None:
            node.process.send_signal(signal.SIGTERM)
    for node in nodes:
        node.process.wait(STAGE_SECONDS)


async def _reports(page: Page, bed: testbed.Testbed) -> None:
    one, all_of_them = bed.folder / "one.html", bed.folder / "all.html"
    write_page_report(one, bed.folder / "east")
    write_run_report(all_of_them, [read_node(bed.folder / name) for name in testbed.NAMES])
    for look, window in LOOKS.items():
        await page.look(window)
        await page.open(one.as_uri())
        await _take(page, f"report-node-{look}", 2)
        await page.open(all_of_them.as_uri())
        await page.until("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 4")
        await _write(page, f"report-run-{look}")


async def _until_reached(page: Page, url: str) -> None:
    """Wait for the page. A node that has just begun does not answer yet, and a browser does not retry."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            page.complaints.clear()
            await page.open(url)
            if await page.evaluate("typeof state === 'object'"):
                return
            await asyncio.sleep(1)


async def _take(page: Page, name: str, charts: int) -> None:
    await page.until(DRAWN.format(charts))
    await _write(page, name)


async def _write(page: Page, name: str) -> None:
    path = IMAGES / f"{name}.png"
    picture = await page.picture()
    print(f"{path}: {path.write_bytes(picture) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
