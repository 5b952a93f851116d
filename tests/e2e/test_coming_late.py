"""A node that comes back after the others have finished: they are gone, gone and back, or still there."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from deca_node.cli.main import main
from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.faults import steps_done
from tests.e2e.testbed import Testbed, largest_difference, largest_of, look, metrics, until
from tests.patience import PATIENCE_SECONDS

FLAGS = {"inner_steps": 20, "rounds": 1, "open_timeout_seconds": 10, "finish_timeout_seconds": 5}


def finished_without(testbed: Testbed, **flags: str) -> tuple[list[NodeProcess], dict[str, object]]:
    """A run of a, b and late, in which late is stopped early and the others finish. Returns a and b, and the flags."""
    testbed.peers("a", "b", "late")
    nodes = [testbed.start(name, **FLAGS, **flags) for name in ("a", "b")]
    late = testbed.start("late", **FLAGS)
    until(lambda: steps_done(late) > 5, "some steps")
    ended(testbed, late, signal.SIGTERM)
    for node in nodes:
        if flags:
            look(node, lambda status: status.phase == "staying", f"{node.name} to finish and stay")
        else:
            assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(20)
            testbed.nodes.nodes.remove(node)
    return nodes, {**FLAGS}


def ended(testbed: Testbed, node: NodeProcess, number: signal.Signals | None = None) -> None:
    if number is not None:
        node.process.send_signal(number)
    assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(20)
    testbed.nodes.nodes.remove(node)


def test_the_others_have_finished_and_are_gone(testbed: Testbed) -> None:
    """It waits, and says for whom. With --alone it goes on, and its model is marked as its own wherever it goes."""
    nodes, flags = finished_without(testbed)
    late = testbed.start("late", **flags)
    until(lambda: "none of the other nodes is here (a, b)" in late.log_text(), "it to say that it waits")
    status = look(late, lambda status: status.phase == "gathering", "it to wait")
    assert status.awaits == "peers: a, b"
    assert not (late.directory / "final").exists()
    ended(testbed, late, signal.SIGTERM)

    late = testbed.start("late", alone=True, **flags)
    ended(testbed, late)
    assert "this model is not the others'" in late.log_text()
    why = json.loads((late.directory / "final" / "deca.json").read_text())["alone"]
    assert why == "no other node took part in the final flush of 4 of 4 blocks"
    copies = [str(nodes[0].directory), str(late.directory)]
    assert main(["export", "--average", str(testbed.folder / "mean"), *copies]) == 7
    assert not (testbed.folder / "mean").exists()
    assert main(["export", "--average", "--anyway", str(testbed.folder / "mean"), *copies]) == 0
    assert main(["report", "--out", str(testbed.folder / "late.html"), *copies]) == 0
    assert why in (testbed.folder / "late.html").read_text()


@pytest.mark.slow
def test_the_others_have_finished_and_come_back(testbed: Testbed) -> None:
    nodes, flags = finished_without(testbed)
    late = testbed.start("late", **flags)
    until(lambda: "none of the other nodes is here (a, b)" in late.log_text(), "it to say that it waits")
    for node in nodes:
        shutil.copytree(node.directory / "final", testbed.folder / f"{node.name}-final")
        again = testbed.start(node.name, after_run="stay 10m", **flags)
        look(again, lambda status: status.phase == "staying", f"{node.name} to be back")
    ended(testbed, late)
    took_the_tuned_model(late, [testbed.folder / f"{node.name}-final" for node in nodes])


def test_the_others_have_finished_and_stay(testbed: Testbed) -> None:
    nodes, flags = finished_without(testbed, after_run="stay 10m")
    late = testbed.start("late", **flags)
    ended(testbed, late)
    took_the_tuned_model(late, [node.directory / "final" for node in nodes])
    assert largest_difference([*nodes, late]) < 1e-3


def took_the_tuned_model(late: NodeProcess, finals: list[Path]) -> None:
    assert "fetched" in late.log_text() and "this model is not the others'" not in late.log_text()
    assert not (late.directory / "final" / "deca.json").exists()
    assert largest_of(*finals, late.directory / "final") < 1e-3
    assert metrics(late, "eval")[-1]["when"] == "end"
