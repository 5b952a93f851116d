"""A small model in three blocks and plans of runs with it, for the tests of this room."""

from typing import Any

from deca_node.daemon.settings import parts
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.case import BlockShape, Case, Machine, ModelShape

NAMES = ("a", "b", "c", "d", "e")
HIDDEN, INTERMEDIATE, VOCABULARY = 8, 32, 100


def block(name: str, elements: int, layers: int = 0, layers_from: int = 0, multiplied_from: int = 0) -> BlockShape:
    frame_bytes = {"fp32": 4 * elements, "bf16": 2 * elements, "int8": elements + 4, "int4": elements // 2 + 4}
    return BlockShape(
        name=name,
        elements=elements,
        largest_tensor=elements // 2,
        layers=layers,
        layers_from=layers_from,
        multiplied=elements if name != "embedding" else 0,
        multiplied_from=multiplied_from,
        frame_bytes=frame_bytes,
        v_bytes=4 + elements // 100,
        m_bytes={bits: bits * elements // 8 + 4 for bits in (1, 2, 4, 8)},
    )


MODEL = ModelShape(
    name="three blocks",
    blocks=(
        block("embedding", 3000, layers_from=1, multiplied_from=1500),
        block("layers.0", 1000, layers=1, layers_from=1, multiplied_from=1500),
        block("head", 500, multiplied_from=500),
    ),
    dtype_bytes=4,
    layers=1,
    hidden=HIDDEN,
    intermediate=INTERMEDIATE,
    vocabulary=VOCABULARY,
)


def case(nodes: int = 5, machine: Machine | None = None, **settings: Any) -> Case:
    given = {
        "rounds": 2,
        "inner_steps": 5,
        "flush_mixes": 1,
        "final_flush_mixes": 3,
        "topology": "ring",
        "signal": "none",
    }
    return Case.of(
        RunSettings(**{**given, **settings}), MODEL, NAMES[:nodes], machine or parts.machine_of(NodeSettings())
    )
