"""Two runs that meet through one line of a peers file: only the node with the line is concerned."""

import json

from deca_node.api.client import NodeClient
from tests.e2e.faults import steps_done
from tests.e2e.testbed import Testbed, largest_difference, metrics, paused, until
from tests.patience import PATIENCE_SECONDS


def test_a_line_of_another_run_ends_the_node_that_has_it_and_no_other(testbed: Testbed) -> None:
    """Three nodes train in run x. A fourth is started for run y, with a line of run x's member c in its peers file."""
    names = ("a", "b", "c")
    lines = testbed.peers(*names, "d").read_text().splitlines()
    (testbed.folder / "peers.txt").write_text("\n".join(lines[:3]) + "\n")
    wrong = testbed.folder / "wrong.txt"
    wrong.write_text("\n".join(lines[2:]) + "\n")
    nodes = [testbed.start(name, run_name="x", inner_steps=30, rounds=2) for name in names]
    until(lambda: steps_done(nodes[0]) > 20, "some steps")

    # The run waits for the stranger, so that it is not over before on a fast machine.
    with paused(nodes):
        stranger = testbed.start("d", run_name="y", inner_steps=60, peers=wrong)
        assert stranger.process.wait(PATIENCE_SECONDS) == 7
        testbed.nodes.nodes.remove(stranger)
        differs = "inner_steps is 30 at c and 60 at d; rounds is 2 at c and 1 at d; run_name is x at c and y at d"
        assert f"no agreement with c: the run differs: {differs}" in stranger.log_text()
        assert all(node.process.poll() is None for node in nodes), "the others train on"
        rows = json.loads(NodeClient(nodes[2].directory).get("/v1/members"))
        assert {row["name"] for row in rows} == set(names)

    testbed.wait()
    assert nodes[2].log_text().count("is refused: the run differs") == 1, "c names the stranger once"
    assert not any("is refused" in node.log_text() for node in nodes[:2]), "the others never hear of it"
    for node in nodes:
        steps = [record for record in metrics(node, "step") if "loss" in record]
        assert len(steps) == 2 * 30 * 4, "no step was lost"
        assert metrics(node, "step")[-1]["flows_applied"] >= 2 * len(steps), "every flow of both neighbours"
        assert metrics(node, "step")[-1].get("activations_skipped", 0) == 0
    assert largest_difference(nodes) < 1e-3
