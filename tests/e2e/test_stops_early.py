"""A run whose held-out loss falls no further ends for all nodes at the same visit, through restarts too."""

import json
import signal

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


def test_all_nodes_stop_at_the_same_visit(testbed: Testbed) -> None:
    testbed.peers(*NAMES)
    nodes = [testbed.start(name, **FLAGS, early_stop_gain=NEVER_BETTER) for name in NAMES]
    testbed.wait()
    (stop,) = {stop_of(node) for node in nodes}
    assert 2 * BLOCKS <= stop < ROUNDS * BLOCKS
    assert {last_trained(node) for node in nodes} == {divmod(stop - 1, BLOCKS)}
    assert largest_difference(nodes) < 1e-3, "the final flush has made the copies agree"
    for node in nodes:
        assert f"the run stops early, before activation {stop}" in node.log_text()
        assert metrics(node, "eval")[-1]["when"] == "end"
        assert any(step["round"] == ROUNDS for step in metrics(node, "step")), "the flush is the last round of the plan"


def test_a_node_that_was_killed_and_one_that_was_away_stop_with_the_others(testbed: Testbed) -> None:
    """One is killed and comes back before the stop, the other is away while the members decide."""
    testbed.peers(*NAMES)
    flags = FLAGS | {"early_stop_rounds": 3, "early_stop_gain": NEVER_BETTER}
    nodes = {name: testbed.start(name, **flags) for name in NAMES}
    until(lambda: all(steps_done(node) > 10 for node in nodes.values()), "all to train")
    for name in ("b", "c"):
        nodes[name].process.send_signal(signal.SIGKILL)
        nodes[name].process.wait(PATIENCE_SECONDS)
        testbed.nodes.nodes.remove(nodes[name])
        nodes[name] = testbed.start(name, **flags)
    testbed.wait()
    (stop,) = {stop_of(node) for node in nodes.values()}
    assert 4 * BLOCKS <= stop < ROUNDS * BLOCKS
    for node in nodes.values():
        assert last_trained(node) <= divmod(stop - 1, BLOCKS)
    assert largest_difference(list(nodes.values())) < 1e-3
