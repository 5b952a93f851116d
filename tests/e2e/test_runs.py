"""Whole runs of real processes over real gRPC on loopback, to the end."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import machine_of
from deca_node.numerics.forecast.shapes import meta_model, model_shape
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.case import Case
from deca_node.protocol.planning.traffic import planned_bytes
from tests.e2e.testbed import Testbed, final_parameters, largest_difference, metrics

# 2 layers, an embedding and a head: four blocks.
BLOCKS = 4


def test_two_nodes_train_together_and_end_with_the_same_model(testbed: Testbed) -> None:
    testbed.peers("north", "south")
    nodes = [testbed.start(name) for name in ("north", "south")]
    testbed.wait()
    for node in nodes:
        steps = metrics(node, "step")
        assert sum("loss" in step for step in steps) == 4 * BLOCKS, "exactly R gradient steps per activation"
        assert [record["when"] for record in metrics(node, "eval")] == ["start", "round 1", "end"]
        run = json.loads((node.directory / "run.json").read_text())
        assert run["agreement"]["topology"] == "full"
    start = AutoModelForCausalLM.from_pretrained(testbed.model).state_dict()
    final = AutoModelForCausalLM.from_pretrained(nodes[0].directory / "final").state_dict()
    AutoTokenizer.from_pretrained(nodes[0].directory / "final")
    moved = max(float((start[name] - final[name]).abs().max()) for name in start)
    assert moved > 1e-3
    assert largest_difference(nodes) < 1e-3 * moved


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param({"topology": "ring"}, marks=pytest.mark.slow),
        {"exchange": "overlap", "codec": "int4", "mix_every": 2},
        pytest.param({"signal": "mv", "signal_every": 2}, marks=pytest.mark.slow),
        {
            "topology": "pairs",
            "partners": "step",
            "moments_every": 1,
            "moment_bits": 1,
            "mix_every": 4,
            "codec": "int4",
        },
    ],
)
def test_four_nodes(testbed: Testbed, flags: dict[str, str]) -> None:
    names = ("a", "b", "c", "d")
    testbed.peers(*names)
    nodes = [testbed.start(name, **flags) for name in names]
    testbed.wait()
    assert largest_difference(nodes) < 1e-3
    assert all(metrics(node, "eval")[-1]["when"] == "end" for node in nodes)


@pytest.mark.slow
def test_nodes_that_count_by_their_data(testbed: Testbed) -> None:
    """Each of them tells the others its share when they meet, and all end with one model."""
    names = ("a", "b", "c")
    testbed.peers(*names)
    nodes = [testbed.start(name, weights="tokens", weight_tokens=2500) for name in names]
    testbed.wait()
    assert largest_difference(nodes) < 1e-3
    told = [re.search(r"this node counts ([\d.]+) times as much", node.log_text()) for node in nodes]
    assert all(0.25 <= float(found[1]) <= 4.0 for found in told if found) and all(told)


def test_the_plan_says_what_a_run_will_send(testbed: Testbed) -> None:
    """What `deca-node plan` computes beforehand is what the nodes' counters show, but for the small messages."""
    names = ("a", "b", "c", "d")
    settings = RunSettings(
        rounds=2, inner_steps=4, sequence_length=16, batch_size=2, topology="ring", codec="int4", mix_every=2
    )
    case = Case.of(settings, model_shape(meta_model(str(testbed.model), 16), 1), names, machine_of(NodeSettings()))
    testbed.peers(*names)
    nodes = [testbed.start(name, topology="ring", codec="int4", mix_every=2, rounds=2) for name in names]
    testbed.wait()
    for node in nodes:
        planned = planned_bytes(case)[node.name].total_bytes
        received = metrics(node, "step")[-1]["bytes_received"]
        greetings_and_opens = 16_384
        assert planned <= received <= planned + greetings_and_opens


def test_one_node_alone(testbed: Testbed) -> None:
    testbed.peers("alone")
    node = testbed.start("alone")
    testbed.wait()
    assert all(torch.isfinite(tensor).all() for tensor in final_parameters(node).values())
    assert metrics(node, "step")[-1]["bytes_sent"] == 0
