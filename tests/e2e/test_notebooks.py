"""The notebooks in docs/notebooks, run by real kernels: one alone, one by two parties at once, and the stop button."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

import deca_node
from tests.e2e.testbed import ROOT, Testbed
from tests.patience import PATIENCE_SECONDS

NOTEBOOKS = ROOT / "docs" / "notebooks"


@pytest.fixture(autouse=True)
def _folders_of_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this user's is read, and nothing is written outside of the test's folder."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


async def run(name: str, folder: Path, **variables: str) -> Any:
    """The notebook after it was run in ``folder``. A cell that raises fails the test."""
    book = nbformat.read(NOTEBOOKS / name, as_version=4)
    client = NotebookClient(
        book, timeout=int(PATIENCE_SECONDS), kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return await client.async_execute(env={**os.environ, **variables})


def outputs(book: Any) -> str:
    """All that the cells have printed and shown, as text."""
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") or output.get("data", {}).get("text/html", "") for output in shown)


@pytest.mark.slow
def test_three_parties_in_one_kernel(tmp_path: Path) -> None:
    book = asyncio.run(run("parties_in_one_kernel.ipynb", tmp_path))
    text = outputs(book)
    assert "largest difference between two copies" in text
    for name in ("north", "east", "south"):
        assert f"{name}: held-out loss" in text
        assert f"<td>{name}</td>" in text
    assert text.count("<svg") == 1
    assert text.count("<circle") == 12


def test_two_parties_in_two_kernels(tmp_path: Path) -> None:
    for name in ("north", "south"):
        (tmp_path / name).mkdir()

    async def both() -> list[Any]:
        peers = " ".join(deca_node.local_peers("north", "south"))
        parties = [run("one_party.ipynb", tmp_path / name, PARTY=name, PEERS=peers) for name in ("north", "south")]
        return await asyncio.gather(*parties)

    for name, book in zip(("north", "south"), asyncio.run(both()), strict=True):
        assert "round 1: held-out loss" in outputs(book)
        assert f"{name}: " in outputs(book)


ENDLESS = """
import deca_node
deca_node.tune({model!r}, {data!r}, [], dir="node", threads=1, rounds=100_000, inner_steps=4, sequence_length=16,
               batch_size=2, on_step=lambda step: print("a step"))
"""


def test_the_stop_button_stops_in_order(tmp_path: Path, tiny_model: Path) -> None:
    """Jupyter sends the interrupt to the kernel's whole process group; the node is in a group of its own."""
    code = ENDLESS.format(model=str(tiny_model), data=str(Testbed(tmp_path, tiny_model).data("north")))

    async def press_stop() -> list[str]:
        async with kernel(tmp_path) as (manager, client):
            client.execute(code)
            raised: list[str] = []
            pressed = False
            while True:
                message = await client.get_iopub_msg(timeout=PATIENCE_SECONDS)
                match message["msg_type"], message["content"]:
                    case "stream", {"text": text} if "a step" in text and not pressed:
                        pressed = True
                        await manager.interrupt_kernel()
                    case "error", {"ename": name}:
                        raised.append(str(name))
                    case "status", {"execution_state": "idle"} if raised:
                        return raised

    assert asyncio.run(press_stop()) == ["KeyboardInterrupt"]
    assert any((tmp_path / "node" / "checkpoints").iterdir())
    assert (
        "stops after the current step" in (tmp_path / "node" / "output.log").read_text()
        or "stopping after" in (tmp_path / "node" / "output.log").read_text()
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "node" / "lock").read_text()), signal.SIGCONT)


@asynccontextmanager
async def kernel(folder: Path) -> AsyncIterator[tuple[AsyncKernelManager, Any]]:
    """A kernel that runs in ``folder``, and its client."""
    manager = AsyncKernelManager(kernel_name="python3")
    await manager.start_kernel(cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=PATIENCE_SECONDS)
        yield manager, client
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
