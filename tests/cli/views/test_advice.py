"""The advice of a plan: which single change helps most."""

import dataclasses
import re
from typing import Any

import pytest

from deca_node.cli.views.advice import advise, in_words
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import machine_of
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.case import BlockShape, Case, ModelShape
from deca_node.protocol.planning.duration import flops_per_second, transfer_seconds
from deca_node.protocol.planning.traffic import update_bytes


def block(name: str, layers: int, layers_from: int) -> BlockShape:
    return BlockShape(
        name=name,
        elements=10_000_000,
        largest_tensor=1_000_000,
        layers=layers,
        layers_from=layers_from,
        multiplied=10_000_000,
        multiplied_from=10_000_000 * (layers_from + 1),
        frame_bytes={"fp32": 40_000_000, "bf16": 20_000_000, "int8": 10_156_252, "int4": 5_625_000},
        v_bytes=39_067,
        m_bytes={8: 10_156_252},
    )


ONE_LAYER = ModelShape(
    "m", (block("layers.0", 1, 2), block("layers.1", 1, 1), block("head", 0, 0)), 4, 2, 512, 2048, 10_000
)
FAST_LINK = {"bits_per_second": 1e12, "latency_seconds": 0.0}


def case(machine: dict[str, Any] | None = None, **settings: Any) -> Case:
    planned = Case.of(RunSettings(**{"topology": "full", **settings}), ONE_LAYER, "abcde", machine_of(NodeSettings()))
    return planned.on(**(machine or {}))


def best(planned: Case) -> str:
    found = advise(planned, ONE_LAYER).best
    return found.change if found else "nothing"


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"codec": "fp32"}, "--codec int4"),
        ({"codec": "int4"}, "--topology ring"),
        ({"codec": "int4", "topology": "ring"}, "--mix-every 2"),
        ({"codec": "int8", "topology": "ring", "inner_steps": 1}, "--codec int4"),
        ({"codec": "int4", "topology": "ring", "inner_steps": 1, "exchange": "overlap"}, "nothing"),
    ],
)
def test_where_the_network_takes_longest(settings: dict[str, Any], change: str) -> None:
    assert best(case(**settings)) == change


def test_overlap_where_transfer_and_compute_are_alike() -> None:
    """It hides half of the run; half as many exchanges save a quarter."""
    planned = case({"latency_seconds": 0.0}, codec="int4", topology="ring", flush_mixes=0, final_flush_mixes=1)
    transfer = transfer_seconds(planned, update_bytes(planned, ONE_LAYER.blocks[0]))
    assert best(planned.on(flops_per_second=flops_per_second(planned, transfer))) == "--exchange overlap"


def test_where_compute_takes_longest() -> None:
    assert best(case(FAST_LINK)) == "nothing"
    assert best(case({**FAST_LINK, "gradient_checkpointing": True})) == "--no-gradient-checkpointing"


def test_memory_comes_first() -> None:
    """The change that saves most is named; one that makes a run faster but does not fit never is."""
    tight = case({"memory_bytes": 3e8})
    advice = advise(tight, ONE_LAYER)
    assert (advice.aim, advice.best) == ("memory", min(advice.alternatives, key=lambda a: a.memory_bytes))
    assert {a.change for a in advice.alternatives} == {
        *("--gradient-checkpointing", "--micro-batch 1", "--dtype bfloat16", "--topology ring")
    }
    verdict = r"--\S+( \S+)? saves most: the run then needs \S+ \SB, which (fits|does not fit yet)\."
    assert re.fullmatch(rf"The run needs \S+ \SB, and there are 300 MB\. {verdict}", in_words(tight, advice))
    checkpointing = {**FAST_LINK, "gradient_checkpointing": True}
    room = advise(case(checkpointing), ONE_LAYER).now.memory_bytes
    assert best(case({**checkpointing, "memory_bytes": room})) == "nothing"


def test_finer_blocks_save_memory() -> None:
    both = dataclasses.replace(block("layers.0-1", 2, 2), elements=20_000_000)
    coarse = dataclasses.replace(ONE_LAYER, blocks=(both, ONE_LAYER.blocks[-1]))
    planned = Case.of(RunSettings(block_layers=2), coarse, "ab", machine_of(NodeSettings(), memory_bytes=1.0))
    found = {a.change: a.memory_bytes for a in advise(planned, ONE_LAYER).alternatives}
    assert found["--block-layers 1"] < advise(planned, ONE_LAYER).now.memory_bytes


def test_the_price_of_mixing_less_is_named() -> None:
    planned = case(codec="int4", inner_steps=4, topology="ring")
    sentence = in_words(planned, advise(planned, ONE_LAYER))
    assert re.fullmatch(
        r"The network takes longest\. --mix-every 2 shortens the run most, from .* to .*; "
        r"a step then leaves \d+% of a disagreement, not \d+%\.",
        sentence,
    )
