"""One node, several ranks: the same model as with one, whatever happens to a rank."""

import os
import signal
from pathlib import Path

import pytest

from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.faults import steps_done
from tests.e2e.testbed import Testbed, largest_difference, largest_of, look, metrics, paused, until
from tests.patience import PATIENCE_SECONDS

ROUNDING = 2e-5
"""The largest difference that sums in another order make over these runs, in a model whose steps are 1e-3."""


def ranks_of(node: NodeProcess) -> list[int]:
    """The processes of a node's trainer, rank 0 first."""
    return sorted(map(int, Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()))


def finished(testbed: Testbed, node: NodeProcess, name: str) -> Path:
    """Wait for a node that is alone, and move its folder away."""
    assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(30)
    testbed.nodes.nodes.remove(node)
    return node.directory.rename(testbed.folder / name)


def test_two_ranks_train_the_same_model_as_one(testbed: Testbed) -> None:
    """A mixed run: one node has two ranks with unequal shares, the other has one rank."""
    finals: list[Path] = []
    losses: list[float] = []
    for devices in ("cpu", "cpu*2"):
        testbed.peers("north", "south")
        nodes = [testbed.start("north", devices=devices, batch_size=3), testbed.start("south", batch_size=3)]
        testbed.wait()
        if devices == "cpu*2":
            step = metrics(nodes[0], "step")[0]
            assert step["rank.0.compute_seconds"] > 0
            assert step["rank.1.peak_bytes"] > 1e6
        losses.append(metrics(nodes[0], "eval")[-1]["loss"])
        finals += [node.directory.rename(testbed.folder / f"{node.name} {devices}") / "final" for node in nodes]
    one, _, two, _ = finals
    assert losses[0] == pytest.approx(losses[1], abs=ROUNDING)
    assert 0 < largest_of(one, two) < ROUNDING
    assert largest_of(*finals[2:]) < ROUNDING, "both nodes of the mixed run have one model"


@pytest.mark.slow
def test_ranks_die_and_change_and_the_model_is_the_same(testbed: Testbed) -> None:
    """Either rank is killed, then the node is stopped and goes on with another number of ranks."""
    testbed.peers("north")
    flags = {"batch_size": 3, "inner_steps": 60, "checkpoint_every": 5}
    plain = finished(testbed, testbed.start("north", **flags), "plain")
    node = testbed.start("north", devices="cpu*2", **flags)
    for victim in (1, 0):
        before = steps_done(node)
        until(lambda before=before: steps_done(node) > before + 7, "some steps")
        os.kill(ranks_of(node)[victim], signal.SIGKILL)
        sentence = f"rank {victim} (cpu): the trainer process was killed by signal 9"
        until(lambda sentence=sentence: sentence in node.log_text(), f"the death of rank {victim}")
        until(lambda: len(ranks_of(node)) == 2, "two new ranks")
        look(node, lambda status: status.phase == "visiting", "training to go on")
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(30)
    testbed.nodes.nodes.remove(node)
    assert "Traceback" not in node.log_text()
    again = finished(testbed, testbed.start("north", devices="cpu*3", **flags), "again")
    assert 0 < largest_of(plain / "final", again / "final") < 10 * ROUNDING


@pytest.mark.slow
def test_a_late_node_takes_the_model_from_one_with_ranks(testbed: Testbed) -> None:
    """The newcomer has two ranks as well: donors' blocks reach all of them."""
    testbed.peers("north", "south")
    flags = {"devices": "cpu*2", "inner_steps": 6, "rounds": 4}
    nodes = [testbed.start(name, **flags) for name in ("north", "south")]
    until(lambda: steps_done(nodes[0]) > 42, "every block to be visited")
    seed = (testbed.folder / "peers.txt").read_text().splitlines()[0].partition("@")[2]
    with paused(nodes):
        late = testbed.join("late", seed, model=testbed.model, devices="cpu*2")
        until(lambda: "fetched " in late.log_text(), "the donors' blocks")
    testbed.wait()
    assert metrics(late, "step")[-1]["flows_applied"] > 0, "it took part"
    assert largest_difference([*nodes, late]) < 1e-3
