"""The inputs of a plan, and the facts of its graph."""

import dataclasses

import pytest

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import machine_of
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.planning.case import Case
from deca_node.protocol.planning.traffic import update_bytes
from tests.protocol.planning.cases import MODEL, NAMES, case


def test_mixing_figures() -> None:
    full = case(topology="full").mixing
    assert (full.nodes, full.edges, full.degree_min, full.degree_max) == (5, 10, 4, 4)
    assert full.left_per_mix == pytest.approx(0.0, abs=1e-9)
    assert full.spectral_gap == pytest.approx(1.0)
    ring = case().mixing
    assert (ring.edges, ring.degree_max) == (5, 2)
    assert ring.spectral_gap == pytest.approx(1.0 - ring.left_per_mix)
    assert case(exchange="overlap").mixing.left_per_mix > ring.left_per_mix, "gamma_c is a half"


def test_seldom_mixes_leave_more_per_step() -> None:
    often, seldom = case(inner_steps=6), case(inner_steps=6, mix_every=3)
    assert often.left_per_step == pytest.approx(often.mixing.left_per_mix)
    assert seldom.left_per_step**3 == pytest.approx(often.mixing.left_per_mix)


def test_only_the_graph_is_reckoned_anew() -> None:
    planned = case(nodes=4)
    assert planned.under(codec="int4").mixing is planned.mixing
    assert planned.under(topology="full").mixing.edges == 6
    assert planned.under(final_flush_mixes=0).final_flush_mixes == planned.mixing.mixes_to_agree


def test_topk_flows_slowly_and_flushes_long() -> None:
    """topk saves bytes and needs more mixes, and the plan shows both."""
    frame_bytes = {**MODEL.blocks[0].frame_bytes, "topk": 10}
    model = dataclasses.replace(
        MODEL, blocks=tuple(dataclasses.replace(block, frame_bytes=frame_bytes) for block in MODEL.blocks)
    )
    settings = RunSettings(topology="full", codec="topk", rounds=1)
    planned = Case.of(settings, model, NAMES[:4], machine_of(NodeSettings()))
    assert planned.final_flush_mixes == 163
    assert planned.mixing.left_per_mix == pytest.approx(1 - 0.125)
    assert update_bytes(planned, planned.model.blocks[0]) == 10 + 20
    assert planned.under(codec="int8").final_flush_mixes == 3


def test_edges_that_do_not_fit_are_refused_before_a_run() -> None:
    with pytest.raises(SettingsError, match=r"^edges: 'a-z' does not join two members"):
        case(topology="edges", edges="a-z")
