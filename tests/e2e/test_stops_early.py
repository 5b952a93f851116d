"""A run whose held-out loss falls no further ends for all nodes at the same visit, through restarts too."""

import json
import signal

import pytest
from transformers import AutoModelForCausalLM

from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.faults import steps_done
from tests.e2e.testbed import Testbed, largest_difference, metrics, until
from tests.patience import PATIENCE_SECONDS

ROUNDS, BLOCKS = 200, 4
NAMES = ("a", "b", "c")
FLAGS = {"rounds": ROUNDS, "inner_steps": 3, "network": "local", "early_stop_rounds": 1}
NEVER_BETTER = 100.0
"""A gain in nats that no round has."""


def stop_of(node: NodeProcess) -> int:
    stop = json.loads((node.directory / "heldout.json").read_text())["stop_at"]
    assert isinstance(stop, int)
    return stop


def last_trained(node: NodeProcess) -> tuple[int, int]:
    """Round and block of the last step with a gradient."""
    step = [step for step in metrics(node, "step") if "loss" in step][-1]
    return step["round"], step["block"]


@pytest.mark.slow
def test_all_nodes_stop_at_the_same_visit(testbed: Testbed) -> None:
    testbed.peers(*NAMES)
    nodes = [testbed.start(name, **FLAGS, early_stop_gain=NEVER_BETTER) for name in NAMES]
    testbed.wait()
    (stop,) = {stop_of(node) for node in nodes}
    assert BLOCKS < stop < ROUNDS * BLOCKS
    assert {last_trained(node) for node in nodes} == {divmod(stop - 1, BLOCKS)}
    assert largest_difference(nodes) < 1e-3, "the final flush has made the copies agree"
    for node in nodes:
        assert f"the run stops early, before activation {stop}" in node.log_text()
        assert metrics(node, "eval")[-1]["when"] == "end"
        assert not (node.directory / "best").exists(), "no round is better than the start"
        assert any(step["round"] == ROUNDS for step in metrics(node, "step")), "the flush is the last round of the plan"


def test_the_best_model_is_kept_beside_the_last(testbed: Testbed) -> None:
    testbed.peers("a", "b")
    nodes = [testbed.start(name, **FLAGS | {"rounds": 3, "early_stop_rounds": 3}) for name in ("a", "b")]
    testbed.wait()
    for node in nodes:
        note = json.loads((node.directory / "best" / "best.json").read_text())
        assert 1 <= note["round"] <= 3 and note["heldout_loss"] > 0
        AutoModelForCausalLM.from_pretrained(node.directory / "best")
        assert not list(node.directory.glob("*candidate*"))
        assert f"round {note['round']} has the lowest held-out loss so far" in node.log_text()


def test_a_node_that_was_killed_stops_with_the_others(testbed: Testbed) -> None:
    """It comes back before the stop, or catches up with the others after it."""
    testbed.peers(*NAMES)
    flags = FLAGS | {"early_stop_rounds": 3, "early_stop_gain": NEVER_BETTER}
    nodes = {name: testbed.start(name, **flags) for name in NAMES}
    until(lambda: all(steps_done(node) > 10 for node in nodes.values()), "all to train")
    nodes["b"].process.send_signal(signal.SIGKILL)
    nodes["b"].process.wait(PATIENCE_SECONDS)
    testbed.nodes.nodes.remove(nodes["b"])
    nodes["b"] = testbed.start("b", **flags)
    testbed.wait()
    (stop,) = {stop_of(node) for node in nodes.values()}
    assert 3 * BLOCKS < stop < ROUNDS * BLOCKS
    for node in nodes.values():
        assert last_trained(node) <= divmod(stop - 1, BLOCKS)
    assert largest_difference(list(nodes.values())) < 1e-3
