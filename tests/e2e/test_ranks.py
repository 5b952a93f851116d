"""One node, several ranks: the same model as with one, whatever happens to a rank."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.faults import steps_done
from tests.e2e.networks import Namespaces
from tests.e2e.testbed import Testbed, largest_difference, largest_of, look, metrics, paused, until
from tests.patience import PATIENCE_SECONDS

ROUNDING = 2e-5
"""The largest difference that sums in another order make over these runs, in a model whose steps are 1e-3."""


def ranks_of(node: NodeProcess) -> list[int]:
    """The processes of a node's trainer, rank 0 first."""
    return children_of(node.process.pid)


def children_of(process: int) -> list[int]:
    """The processes that a process has started, the oldest first."""
    return sorted(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def finished(testbed: Testbed, node: NodeProcess, name: str) -> Path:
    """Wait for a node that is alone, and move its folder away."""
    assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(30)
    testbed.nodes.nodes.remove(node)
    return node.directory.rename(testbed.folder / name)


@pytest.mark.slow
def test_four_nodes_train_one_model_however_two_of_them_share_their_work(testbed: Testbed) -> None:
    """A mixed run: one node has two ranks with unequal shares of each batch, one has its model sharded over two."""
    finals: list[Path] = []
    losses: list[float] = []
    for mixed in (False, True):
        testbed.peers("north", "south", "east", "west")
        ranks: list[dict[str, str]] = [{}, {}, {}, {}]
        if mixed:
            ranks[:2] = [{"devices": "cpu*2", "parallel": which} for which in ("data", "shard")]
        names = zip(("north", "south", "east", "west"), ranks, strict=True)
        nodes = [testbed.start(name, batch_size=3, **given) for name, given in names]
        testbed.wait()
        for node in nodes[: 2 if mixed else 0]:
            step = metrics(node, "step")[0]
            assert step["rank.0.compute_seconds"] > 0
            assert step["rank.1.peak_bytes"] > 1e6
        losses.append(metrics(nodes[0], "eval")[-1]["loss"])
        finals += [node.directory.rename(testbed.folder / f"{node.name} {mixed}") / "final" for node in nodes]
    assert losses[0] == pytest.approx(losses[1], abs=ROUNDING)
    assert 0 < largest_of(finals[0], finals[4]) < ROUNDING
    assert largest_of(*finals[4:]) < ROUNDING, "all nodes of the mixed run have one model"


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "shard"])
def test_ranks_die_and_change_and_the_model_is_the_same(testbed: Testbed, parallel: str) -> None:
    """Either rank is killed, then the node is stopped and goes on with another number of ranks."""
    testbed.peers("north")
    flags = {"batch_size": 3, "inner_steps": 60, "checkpoint_every": 5}
    plain = finished(testbed, testbed.start("north", **flags), "plain")
    node = testbed.start("north", devices="cpu*2", parallel=parallel, **flags)
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
    again = finished(testbed, testbed.start("north", devices="cpu*3", parallel=parallel, **flags), "again")
    assert 0 < largest_of(plain / "final", again / "final") < 10 * ROUNDING


@pytest.mark.slow
def test_a_late_node_takes_the_model_from_nodes_with_ranks(testbed: Testbed) -> None:
    """Donors and newcomer have two ranks each: donors' blocks reach all of them. A rank that is killed costs its node
    no more than a visit."""
    testbed.peers("north", "south", "east")
    flags = {"inner_steps": 6, "rounds": 4}
    ranks = ({"devices": "cpu*2", "parallel": "shard"}, {"devices": "cpu*2", "parallel": "data"}, {})
    names = zip(("north", "south", "east"), ranks, strict=True)
    nodes = [testbed.start(name, **given, **flags) for name, given in names]
    until(lambda: steps_done(nodes[0]) > 42, "every block to be visited")
    seed = (testbed.folder / "peers.txt").read_text().splitlines()[0].partition("@")[2]
    with paused(nodes):
        late = testbed.join("late", seed, model=testbed.model, **ranks[0])
        until(lambda: "fetched " in late.log_text(), "the donors' blocks")
    os.kill(ranks_of(nodes[0])[1], signal.SIGKILL)
    testbed.wait()
    assert "rank 1 (cpu): the trainer process was killed by signal 9" in nodes[0].log_text()
    assert metrics(late, "step")[-1]["flows_applied"] > 0, "it took part"
    assert largest_difference([*nodes, late]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "shard"])
def test_one_node_on_two_servers(testbed: Testbed, parallel: str) -> None:
    """Two servers in network namespaces of their own. A rank of the second is killed, then all of that server; the
    model becomes that of one rank."""
    flags = {"batch_size": 3, "inner_steps": 60, "checkpoint_every": 5}
    testbed.peers("north")
    plain = finished(testbed, testbed.start("north", **flags), "plain")
    (testbed.folder / "secret").write_text("s" * 32)
    with Namespaces(testbed, ("north", "second")) as servers:
        address = f"{servers.address('north')}:29400"
        (testbed.folder / "peers.txt").write_text(f"north@{servers.address('north')}:7001\n")
        secret = testbed.folder / "secret"
        lend = (*servers.within("second"), sys.executable, "-P", "-m", "deca_node", "lend", "--to", address)
        command = (*lend, "--devices", "cpu*2", "--secret", str(secret), "--threads", "1")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
            node = servers.start(
                "north", ranks_elsewhere=2, ranks_at=address, ranks_secret=secret, parallel=parallel, **flags
            )
            until(lambda: steps_done(node) > 12, "some steps")
            os.kill(children_of(second.pid)[1], signal.SIGKILL)
            until(lambda: "@" in node.log_text() and "was killed by signal 9" in node.log_text(), "the death of a rank")
            before = steps_done(node)
            until(lambda: steps_done(node) > before + 7, "training to go on")
            second.send_signal(signal.SIGTERM)
            second.communicate(timeout=PATIENCE_SECONDS)
        until(
            lambda: "its server has gone" in node.log_text() or "ended with" in node.log_text(), "the loss of a server"
        )
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
            assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(30)
            _, said = second.communicate(timeout=PATIENCE_SECONDS)
            assert second.returncode == 0
            assert "the node has ended" in said
    assert 0 < largest_of(plain / "final", node.directory / "final") < 10 * ROUNDING
