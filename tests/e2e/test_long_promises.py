"""Two promises that take minutes to try: a node that is killed at any moment resumes, and a run lives through a storm.

FAULTS_KILLS lowers (or raises) the number of kills, FAULTS_SEED draws other moments.
"""

import os
import random
import time
from pathlib import Path
from statistics import fmean

import pytest

from deca_node.lab.demo.texts import private_corpora, write_corpus
from deca_node.lab.demo.toy_model import Recipe, make_toy_model
from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.faults import (
    all_see,
    allow,
    figure,
    kill,
    one_view,
    processes_of,
    seconds_until,
    steps_done,
    stopped,
    two_views,
    wait_for_steps,
)
from tests.e2e.networks import Switchboard
from tests.e2e.testbed import Testbed, final_parameters, metrics, until
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("FAULTS_KILLS", "100"))
SEED = int(os.environ.get("FAULTS_SEED", "0"))

# --- a node on its own ------------------------------------------------------------------------------

STEPS_BETWEEN_MAX = 30


def lines_written(node: NodeProcess) -> int:
    path = node.directory / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def until_a_random_moment(node: NodeProcess, rng: random.Random) -> None:
    """Sometimes while it starts, mostly after some steps; a little later in any case."""
    if rng.random() < 0.25:
        end = time.monotonic() + rng.uniform(0.0, 4.0)
    else:
        wanted = lines_written(node) + rng.randint(1, STEPS_BETWEEN_MAX)
        until(lambda: lines_written(node) >= wanted or node.process.poll() is not None, "some steps")
        end = time.monotonic() + rng.uniform(0.0, 0.05)
    until(lambda: time.monotonic() >= end, "the moment")


def test_a_node_killed_at_random_moments_always_resumes(testbed: Testbed) -> None:
    """kill -9 of node, trainer or both, again and again: the end is that of an undisturbed run, bit for bit."""
    allow(300 + 30 * KILLS)
    rng = random.Random(SEED)
    testbed.peers("north")
    flags = {"inner_steps": 20, "rounds": 2 + KILLS // 2, "checkpoint_every": 5, "eval_every": "activation"}
    whole = testbed.start("north", **flags)
    testbed.wait(300 + 2 * KILLS)
    expected = final_parameters(whole)
    whole.directory.rename(whole.directory.with_name("whole"))
    testbed.nodes.nodes.clear()

    node, starts, kills = testbed.start("north", **flags), 1, {"node": 0, "trainer": 0, "both": 0}
    for _ in range(KILLS):
        until_a_random_moment(node, rng)
        victim = rng.choice(sorted(kills))
        kills[victim] += 1
        processes = processes_of(node)
        for process in {"node": processes[:1], "trainer": processes[1:], "both": processes}[victim]:
            process.kill()
        if victim != "trainer" or (not processes[1:] and node.process.poll() is not None):
            node.process.wait(PATIENCE_SECONDS)
        if node.process.poll() is None and victim == "trainer" and not metrics(node, "step"):
            # A trainer that dies before it ever knew the model takes its node with it.
            until(lambda n=node: n.process.poll() is not None or metrics(n, "step"), "its end, or its recovery")
        if node.process.poll() is not None:
            assert not (node.directory / "final").exists(), "the run was over before the kills were"
            testbed.nodes.nodes.remove(node)
            node, starts = testbed.start("north", **flags), starts + 1
    testbed.wait(600 + 2 * KILLS)
    found = final_parameters(node)
    equal = all((found[name] == expected[name]).all() for name in expected)
    ordinals = [record["ordinal"] for record in metrics(node, "step")]
    twice = len(ordinals) - len(set(ordinals))
    figure(
        "kill -9", kills=kills, starts=starts, steps=len(set(ordinals)), steps_twice=twice, bit_exact=equal, seed=SEED
    )
    assert equal


# --- six nodes --------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "e", "f")
RUN = {
    "rounds": 8,
    "inner_steps": 20,
    "sequence_length": 128,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "topology": "erdos-renyi",
    "open_timeout_seconds": 20,
    "step_timeout_seconds": 10,
    "finish_timeout_seconds": 60,
    "eval_sequences": 32,
}


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(hidden=64, layers=2, vocabulary=1024, steps=200, threads=1)
    return make_toy_model(tmp_path_factory.mktemp("toy") / "model", recipe).path


class Library(Testbed):
    """Nodes with a private text each, of the standard library."""

    def data(self, name: str) -> Path:
        path = self.folder / f"{name}.jsonl"
        if not path.exists():
            corpus = private_corpora(len(NAMES) + 1)[[*NAMES, "late"].index(name)]
            write_corpus(corpus, path, limit_bytes=150_000, seed=0)
        return path


def heldout_losses(nodes: list[NodeProcess]) -> dict[str, float]:
    """Each node's own loss at the end, nats per token."""
    last = {node.name: metrics(node, "eval")[-1] for node in nodes}
    assert {record["when"] for record in last.values()} == {"end"}
    return {name: round(record["loss"], 4) for name, record in last.items()}


def storm(testbed: Testbed, network: Switchboard) -> dict[str, float]:
    """Start the nodes, let one thing after the other happen to them, and wait for the end; how long each took."""
    nodes = {name: network.start(name, **RUN) for name in NAMES}
    took = {}
    until(lambda: one_view(list(nodes.values())) and steps_done(nodes["a"]) > 5, "all to train", 300)

    kill(testbed.nodes, nodes.pop("a"))
    took["seed_dead"] = seconds_until(lambda: all_see(list(nodes.values()), "a", "dead"), "a to be dead")

    others = [node for node in nodes.values() if node.name != "f"]
    end = time.monotonic() + 30.0
    with stopped(nodes["f"]):
        until(lambda: all_see(others, "f", "dead") and time.monotonic() >= end, "the end of the pause")
    took["pause_refuted"] = seconds_until(lambda: one_view(list(nodes.values())), "f to be back")

    network.part(("d", "e"))
    near, far = [nodes[name] for name in "bcf"], [nodes[name] for name in "de"]
    took["parted"] = seconds_until(lambda: two_views(near, far), "two views")
    wait_for_steps(list(nodes.values()), 3, "both sides to train on")
    network.heal()
    took["healed"] = seconds_until(lambda: one_view(list(nodes.values())), "one view")

    assert all(node.process.poll() is None for node in nodes.values()), "the run was over before the storm was"
    proxy = network.environment("late")
    flags = {"--insecure": True, "--listen": network.address("late"), "--peers": testbed.folder / "none.txt"}
    flags |= {"--data": testbed.data("late"), "--threads": 1, "--finish-timeout-seconds": 60}
    joined = ("join", network.address("b"))
    late = testbed.nodes.start("late", testbed.folder / "out" / "late", flags, verb=joined, environment=proxy)
    took["joined"] = seconds_until(lambda: len(metrics(late, "step")) > 0, "the newcomer to train", 300)
    return took


def test_six_nodes_live_through_a_storm(tmp_path: Path, toy_model: Path) -> None:
    """A seed killed for good, a node paused 30 s, two parted off and back, a newcomer: the loss hardly differs."""
    allow(2400)
    for kind in ("calm", "storm"):
        (tmp_path / kind).mkdir()
    with Library(tmp_path / "calm", toy_model) as testbed:
        testbed.peers(*NAMES)
        nodes = [testbed.start(name, **RUN) for name in NAMES]
        calm_seconds = seconds_until(lambda: all(node.process.poll() is not None for node in nodes), "the end", 900)
        testbed.wait()
        calm = heldout_losses([node for node in nodes if node.name != "a"])
    with Library(tmp_path / "storm", toy_model) as testbed, Switchboard(testbed, NAMES, late=["late"]) as network:
        began = time.monotonic()
        took = storm(testbed, network)
        survivors = list(testbed.nodes.nodes)
        codes = {}
        for node in survivors:
            codes[node.name] = node.process.wait(900)
        rough_seconds = time.monotonic() - began
        rough = heldout_losses([node for node in survivors if node.name in calm])
    ratio = fmean(rough.values()) / fmean(calm.values())
    figure(
        "storm",
        **{f"seconds_{what}": seconds for what, seconds in took.items()},
        seconds_calm=calm_seconds,
        seconds_storm=round(rough_seconds, 1),
        exit_codes=codes,
        loss_calm=calm,
        loss_storm=rough,
        mean_calm=round(fmean(calm.values()), 4),
        mean_storm=round(fmean(rough.values()), 4),
        ratio=round(ratio, 4),
    )
    assert set(codes.values()) == {0}
    assert ratio <= 1.02
