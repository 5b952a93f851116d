"""Nodes that stop, die, come back and come late: what was trained is kept, and the others go on."""

import json
import signal
from pathlib import Path

import psutil
import pytest

from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.faults import processes_of, steps_done
from tests.e2e.testbed import Testbed, final_parameters, largest_difference, look, metrics, paused, until
from tests.patience import PATIENCE_SECONDS


def checkpoints(node: NodeProcess) -> list[Path]:
    return sorted((node.directory / "checkpoints").glob("*/manifest.json"))


def trainer_of(node: NodeProcess) -> psutil.Process:
    (trainer,) = psutil.Process(node.process.pid).children()
    return trainer


def end(node: NodeProcess, testbed: Testbed) -> None:
    node.process.wait(PATIENCE_SECONDS)
    testbed.nodes.nodes.remove(node)


def test_a_stopped_node_goes_on_where_it_was(testbed: Testbed) -> None:
    """SIGTERM in the middle of a visit: exit 0, a checkpoint at that very step, and the same end as without it."""
    testbed.peers("north")
    flags = {"inner_steps": 30, "rounds": 1}
    whole = testbed.start("north", **flags)
    testbed.wait()
    expected = final_parameters(whole)
    whole.directory.rename(whole.directory.with_name("whole"))
    testbed.nodes.nodes.clear()

    first = testbed.start("north", **flags)
    until(lambda: steps_done(first) > 40, "some steps")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(PATIENCE_SECONDS) == 0
    assert "start it again to go on" in first.log_text()
    position = json.loads(checkpoints(first)[-1].read_text())["position"]
    assert position[1] > 0, "the visit was kept in its midst"
    testbed.nodes.nodes.clear()

    second = testbed.start("north", **flags)
    testbed.wait()
    assert "going on from the checkpoint" in second.log_text()
    found = final_parameters(second)
    assert all((found[name] == expected[name]).all() for name in expected), "bit for bit"
    again = testbed.nodes.start("north", second.directory, testbed._defaults("north") | {"--inner-steps": 30})
    assert again.process.wait(PATIENCE_SECONDS) == 0
    assert "the run is complete" in again.log_text()
    assert (
        "to train on, begin a new run from the tuned model with all parties: deca-node start --model "
        in again.log_text()
    )


def test_a_dead_trainer_is_replaced(testbed: Testbed) -> None:
    """kill -9 of a trainer: its node lives, says so, starts another, and both nodes finish alike."""
    testbed.peers("north", "south")
    nodes = [testbed.start(name, inner_steps=30, rounds=2) for name in ("north", "south")]
    until(lambda: steps_done(nodes[0]) > 40, "some steps")
    trainer_of(nodes[0]).kill()
    testbed.wait()
    assert "was killed by signal 9" in nodes[0].log_text()
    assert "starting another" in nodes[0].log_text()
    assert largest_difference(nodes) < 1e-3


def test_a_killed_node_comes_back_and_catches_up(testbed: Testbed) -> None:
    """kill -9 of one of three: the others go on; when it is started again it gets what it missed from them."""
    names = ("a", "b", "c")
    testbed.peers(*names)
    flags = {"inner_steps": 30, "rounds": 3, "open_timeout_seconds": 10}
    nodes = {name: testbed.start(name, **flags) for name in names}
    until(lambda: steps_done(nodes["c"]) > 40, "some steps")
    nodes["c"].process.kill()
    end(nodes["c"], testbed)
    others = [nodes["a"], nodes["b"]]
    before = steps_done(others[0])
    until(lambda: steps_done(others[0]) > before + 40, "the others to go on")
    with paused(others):
        nodes["c"] = testbed.start("c", **flags)
        until(lambda: "catching up" in nodes["c"].log_text(), "the killed node to catch up")
    testbed.wait()
    assert largest_difference(list(nodes.values())) < 1e-3
    assert metrics(nodes["c"], "step")[-1]["activations_skipped"] >= 1


def test_a_newcomer_joins_in_the_middle(testbed: Testbed) -> None:
    """Without model or run.toml: both come from the members, and the newcomer ends with the others' model."""
    testbed.peers("a", "b")
    flags = {"inner_steps": 30, "rounds": 3, "open_timeout_seconds": 10}
    nodes = [testbed.start(name, **flags) for name in ("a", "b")]
    until(lambda: steps_done(nodes[0]) > 40, "some steps")
    seed = (testbed.folder / "peers.txt").read_text().splitlines()[0].partition("@")[2]
    with paused(nodes):
        late = testbed.join("late", seed)
        until(lambda: "catching up" in late.log_text(), "the newcomer to catch up")
    testbed.wait()
    assert largest_difference([*nodes, late]) < 1e-3
    steps = metrics(late, "step")
    assert steps[-1]["flows_applied"] > 0, "it took part"
    assert sum("loss" in step for step in steps) < sum("loss" in step for step in metrics(nodes[0], "step"))


@pytest.mark.slow
def test_a_node_that_stays_serves_until_it_is_told_to_stop(testbed: Testbed) -> None:
    """As an orchestrator wants it that starts again what exits: ready, a donor, 0 at SIGTERM, and the same again."""
    testbed.peers("a", "b", "late")
    nodes = [testbed.start(name, after_run="stay", wait_for=2, finish_timeout_seconds=5) for name in ("a", "b")]
    for node in nodes:
        look(node, lambda status: status.phase == "staying" and status.ready, f"{node.name} to stay")
    late = testbed.start("late", finish_timeout_seconds=5, wait_for=2)
    until(lambda: late.process.poll() is not None, "the late one to take over everything and end")
    assert late.process.returncode == 0
    assert "fetched" in late.log_text()
    assert largest_difference([*nodes, late]) < 1e-3
    first = nodes[0]
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(PATIENCE_SECONDS) == 0
    saved = (first.directory / "final" / "model.safetensors").stat().st_mtime_ns
    again = testbed.start("a", after_run="stay", wait_for=2)
    look(again, lambda status: status.phase == "staying" and status.ready, "it to stay again")
    assert (again.directory / "final" / "model.safetensors").stat().st_mtime_ns == saved, (
        "it is not saved a second time"
    )
    until(lambda: processes_of(again)[1:] == [], "the trainer to go, with its memory")
