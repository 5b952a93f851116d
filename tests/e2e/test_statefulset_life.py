"""A StatefulSet lives through what clusters do to it, while its run goes on. See :mod:`tests.deploy.cluster`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.lab.rigs.processes import LocalNodes
from deca_node.protocol.errors import MismatchError
from tests.deploy.cluster import Cluster, private_mounts
from tests.deploy.pods import make_volumes
from tests.e2e.faults import figure, one_view, states, steps_done, wait_for_steps
from tests.e2e.testbed import ask, metrics, until
from tests.patience import PATIENCE_SECONDS
from tools.earlier_version import EARLIER, unpack

NAMES = [f"deca-{ordinal}" for ordinal in range(5)]
RUN = 'rounds = 1000\ninner_steps = 24\nsequence_length = 16\nbatch_size = 2\ntopology = "full"\n'
CHECKPOINT_EVERY = 48

pytestmark = pytest.mark.skipif(not private_mounts(), reason="this user may not make mount namespaces")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    make_volumes(tmp_path, NAMES, RUN)
    with LocalNodes() as nodes:
        made = Cluster(tmp_path, nodes, wait_for=3)
        yield made
    made.end()


def repeated(cluster: Cluster, name: str) -> int:
    """How many steps this node did twice in its life."""
    ordinals = [int(record["ordinal"]) for record in metrics(cluster.pods[name], "step") if "loss" in record]
    return len(ordinals) - len(set(ordinals))


def goes_on(cluster: Cluster, *without: str) -> None:
    """The other nodes train."""
    wait_for_steps(cluster.others(*without), 5, "the others to train")


def test_pods_meet_and_come_back_under_new_addresses(cluster: Cluster) -> None:
    """All at once, so at first the names lead to nodes that are not ready; then all addresses change at once."""
    cluster.wait_for = 2
    cluster.scale(2)
    cluster.wait_ready()
    goes_on(cluster)
    before = dict(cluster.peers)
    cluster.stop_all()
    cluster.scale(2)
    cluster.wait_ready()
    goes_on(cluster)
    assert before.keys() == cluster.peers.keys()
    assert not set(before.values()) & set(cluster.peers.values())


@pytest.mark.slow
def test_scale_roll_drain_and_lose(cluster: Cluster) -> None:
    cluster.scale(3)
    cluster.wait_ready()
    goes_on(cluster)

    # From 3 to 5 nodes in the middle of the run.
    cluster.scale(5)
    joined = cluster.wait_ready("deca-3", "deca-4")
    until(lambda: one_view(list(cluster.pods.values())), "one view of five nodes")
    goes_on(cluster)

    # A rolling restart, the highest ordinal first; each pod comes back under another address.
    away = cluster.roll(during=lambda name: goes_on(cluster, name))
    assert [repeated(cluster, name) for name in NAMES] == [0] * 5, "a stop writes a checkpoint of the last step"

    # A drained machine: the pod is evicted and starts on another machine.
    drained = cluster.replace("deca-1", during=lambda name: goes_on(cluster, name))
    assert repeated(cluster, "deca-1") == 0

    # A lost machine: the claim stays, the last checkpoint is all there is.
    cluster.lose("deca-2")
    goes_on(cluster)
    cluster.create("deca-2")
    lost = cluster.wait_ready("deca-2")
    assert repeated(cluster, "deca-2") <= CHECKPOINT_EVERY

    # From 5 to 4: the highest leaves for good, and nobody counts on it any more.
    ask(cluster.pods["deca-4"], "leave")
    assert cluster.pods["deca-4"].process.wait(PATIENCE_SECONDS) == 0
    until(lambda: states(cluster.pods["deca-0"]).get("deca-4") not in {"alive", "suspect"}, "the leave to be known")
    goes_on(cluster, "deca-4")
    figure(
        "the life of a StatefulSet",
        joined_seconds=joined,
        rolled_seconds=away,
        drained_seconds=drained,
        lost_seconds=lost,
        repeated_after_loss=repeated(cluster, "deca-2"),
        steps=max(steps_done(node) for node in cluster.pods.values()),
    )


@pytest.mark.slow
def test_a_stale_answer_and_a_changed_run_stop_nobody(cluster: Cluster, tmp_path: Path) -> None:
    cluster.scale(3)
    cluster.wait_ready()
    goes_on(cluster)

    # The resolver of deca-2 keeps its former answer. In it, one address is gone, and one belongs to another node now.
    former = cluster.peers["deca-0"].rpartition(":")[0]
    cluster.stale = {"deca-2"}
    cluster.delete("deca-0")
    cluster.delete("deca-1")
    cluster.create("deca-1", former)
    cluster.create("deca-0")
    cluster.wait_ready()
    cluster.delete("deca-2")
    cluster.create("deca-2")
    stale = cluster.wait_ready("deca-2")
    until(lambda: one_view(list(cluster.pods.values())), "one view in spite of the stale answer")
    goes_on(cluster)
    cluster.stale = set()
    cluster.publish()

    # A pod with other settings of the run says so and ends, also after a restart; the others train on.
    changed = tmp_path / "changed.toml"
    changed.write_text(RUN.replace("inner_steps = 24", "inner_steps = 12"))
    cluster.delete("deca-2")
    cluster.settings_of("deca-2", changed)
    for _ in range(2):
        refused = cluster.create("deca-2")
        assert refused.process.wait(PATIENCE_SECONDS) == MismatchError.exit_code, refused.log_text(20)
        cluster.nodes.nodes.remove(cluster.pods.pop("deca-2"))
        goes_on(cluster)
    cluster.settings_of("deca-2", None)
    cluster.create("deca-2")
    cluster.wait_ready("deca-2")
    goes_on(cluster)
    figure("a stale answer of the DNS", ready_seconds=stale)


@pytest.mark.slow
def test_another_image_rolls_into_a_running_set(cluster: Cluster, tmp_path: Path) -> None:
    """A variable gives the setting that the new version adds its earlier behaviour, as DEPLOYMENT says."""
    earlier = tmp_path / "earlier"
    if not unpack(earlier):
        pytest.skip(f"the history does not reach back to {EARLIER[:12]}")
    names = NAMES[:3]
    for name in names:
        cluster.image_of(name, earlier, {})
    cluster.scale(3)
    cluster.wait_ready()
    goes_on(cluster)
    for name in names:
        cluster.image_of(name, None, {"DECA_PACKING": "concatenated"})
    away = []
    for name in reversed(names):
        away.append(cluster.replace(name, during=lambda name: goes_on(cluster, name)))
        until(lambda: one_view(list(cluster.pods.values())), "one view of both versions")
        wait_for_steps(list(cluster.pods.values()), 5, "both versions to train")
        assert metrics(cluster.pods[name], "step")[-1]["flows_applied"] > 0, "the versions exchange updates"
    assert [repeated(cluster, name) for name in names] == [0] * 3, "no step was lost"
    figure(
        "another image in a StatefulSet",
        rolled_seconds=away,
        steps=max(steps_done(node) for node in cluster.pods.values()),
    )
