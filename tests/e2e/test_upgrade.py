"""Nodes of two versions in one run: the earlier one comes from the history, and is replaced node by node.

:mod:`tools.earlier_version` says which one that is. `make image-test` does the same with containers.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from deca_node.lab.rigs.processes import NodeProcess
from deca_node.protocol.agreed.agreement import FORMER
from tests.e2e.faults import figure, one_view, steps_done, wait_for_steps
from tests.e2e.testbed import Testbed, ask, metrics, until
from tests.patience import PATIENCE_SECONDS
from tools.earlier_version import EARLIER, unpack

NAMES = ("a", "b", "c")
FLAGS = {"inner_steps": 40, "rounds": 1000, "open_timeout_seconds": 10}

pytestmark = pytest.mark.slow


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder with the earlier version."""
    folder = tmp_path / "earlier"
    if not unpack(folder):
        pytest.skip(f"the history does not reach back to {EARLIER[:12]}")
    return folder


def start(testbed: Testbed, name: str, version: Path | None) -> NodeProcess:
    """Start a node of the earlier version, or of this one. A setting that the earlier version lacks gets the value
    that stands for the earlier behaviour."""
    if version is None:
        former: dict[str, Any] = dict(FORMER)
        return testbed.start(name, **FLAGS, **former)
    return testbed.start(name, {"PYTHONPATH": str(version)}, within=("env", "-C", str(version)), **FLAGS)


def upgrade(testbed: Testbed, node: NodeProcess) -> NodeProcess:
    """Stop a node, and start this version in its folder."""
    ask(node, "stop")
    assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(20)
    testbed.nodes.nodes.remove(node)
    shutil.copy(node.log, node.log.with_suffix(".earlier.log"))
    return start(testbed, node.name, None)


def test_a_run_is_upgraded_node_by_node(testbed: Testbed, earlier: Path) -> None:
    testbed.peers(*NAMES)
    nodes = {name: start(testbed, name, earlier) for name in NAMES}
    until(lambda: all(steps_done(node) > 20 for node in nodes.values()), "the earlier version to train")
    for name in reversed(NAMES):
        before = steps_done(nodes[name])
        nodes[name] = upgrade(testbed, nodes[name])
        until(lambda name=name: "going on from the checkpoint" in nodes[name].log_text(), "the checkpoint to be read")
        until(lambda: one_view(list(nodes.values())), "one view of both versions")
        wait_for_steps(list(nodes.values()), 5, "both versions to train together")
        exchanged = metrics(nodes[name], "step")[-1]["flows_applied"]
        assert exchanged > 0, "the versions exchange updates"
        figure("an upgrade", node=name, step_before=before, flows_applied=exchanged)
    for node in nodes.values():
        assert metrics(node, "step")[-1]["consensus_distance"] < 1e-3
        ask(node, "stop")
    testbed.wait()
    for node in nodes.values():
        ordinals = [int(record["ordinal"]) for record in metrics(node, "step") if "loss" in record]
        assert len(ordinals) == len(set(ordinals)), "no step was lost"


def test_a_new_value_of_a_setting_is_refused_by_name(testbed: Testbed, earlier: Path) -> None:
    """Both ends say in which setting they differ, and nobody trains with the other."""
    testbed.peers("a", "b")
    start(testbed, "a", earlier)
    new = testbed.start("b", **FLAGS)
    assert new.process.wait(PATIENCE_SECONDS) == 7
    assert "packing" in new.log_text()
    testbed.nodes.nodes.remove(new)
