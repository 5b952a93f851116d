"""The size of a node's folder, compared with the formula in words."""

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import machine_of
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.case import Case
from deca_node.protocol.planning.disk import delta_bytes, folder_bytes
from tests.protocol.planning.cases import MODEL


def test_every_part_of_the_folder() -> None:
    elements = [block.elements for block in MODEL.blocks]
    largest = max(elements)
    case = Case.of(
        RunSettings(rounds=2, inner_steps=5, final_flush_mixes=3), MODEL, ["a", "b"], machine_of(NodeSettings())
    )
    parts = folder_bytes(case)
    size = case.dtype_bytes
    assert parts["start"] == parts["final"] == size * sum(elements)
    assert parts["incoming"] == sum(map(delta_bytes, elements))
    assert parts["blocks"] == parts["start"] + parts["incoming"] + size * largest + delta_bytes(largest)
    assert parts["checkpoints"] == 24 * largest
    # Two rounds with five steps and two flush mixes per visit, and a round of three mixes per block.
    assert parts["metrics.jsonl"] == 1024 * len(elements) * (2 * (5 + 2) + 3)


def test_the_tokens_of_the_data_count() -> None:
    """A classifier keeps them in memory."""
    case = Case.of(RunSettings(), MODEL, ["a", "b"], machine_of(NodeSettings()))
    assert "tokens" not in folder_bytes(case)
    assert folder_bytes(case, 1000)["tokens"] == 2000
    assert folder_bytes(case.under(task="classification"), 1000)["tokens"] == 4000


def test_a_delta_has_a_byte_per_element_and_a_scale_per_group() -> None:
    assert [delta_bytes(n) for n in (1, 256, 257)] == [260, 260, 520]
