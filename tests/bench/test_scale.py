"""The simulation of many nodes: its matrix, its contraction and its mean agree with the protocol's."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from bench.scale.__main__ import GRAPHS, SIMULATED, apart, home, model, named, settings_of
from bench.scale.picture import draw
from bench.scale.simulate import left_per_mix, simulate, weights
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.topology import graph
from deca_node.protocol.agreed.weights import contraction, matrix

RUN = RunSettings(**SIMULATED, topology="ring", codec="fp32", seed=3)


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_and_contraction_are_the_protocol_s(name: str) -> None:
    found = graph(named(12), settings_of(name, 12, 0))
    torch.testing.assert_close(weights(found), torch.tensor(matrix(found), dtype=torch.float64))
    assert left_per_mix(weights(found), 1.0) == pytest.approx(contraction(found), abs=1e-6)
    assert left_per_mix(weights(found), 0.5) == pytest.approx(contraction(found, 0.5), abs=1e-6)


def test_a_flush_contracts_as_the_spectral_gap_says() -> None:
    """Without a codec's error, only the slowest part of a disagreement remains in the end."""
    names = named(16)
    few, many = (simulate(names, RUN, mixes) for mixes in (20, 40))
    assert (few.trained, few.flushed) == (many.trained, many.flushed)
    left = (many.ended / few.ended) ** (1 / 20)
    assert left == pytest.approx(left_per_mix(weights(graph(names, RUN)), 1.0), abs=5e-3)


def test_everybody_with_everybody_agrees_at_once() -> None:
    found = simulate(named(8), replace(RUN, topology="full"), 1)
    assert found.trained < 1e-3 * found.moved
    assert simulate(named(1), RUN, 1).trained == 0.0


def test_coarse_codes_move_no_mean() -> None:
    """The mean over nodes after a run depends on the codec only through the gradients."""
    moved = [simulate(named(8), replace(RUN, codec=codec), 3).moved for codec in ("fp32", "int8", "int4")]
    assert moved[1] == pytest.approx(moved[0], rel=2e-3)
    assert moved[2] == pytest.approx(moved[0], rel=2e-2)


@pytest.mark.slow
def test_a_hundred_homes_wait_for_what_they_may_send() -> None:
    row = home("ring", {"topology": "ring"}, model(), 0)
    assert row["neighbours"] == 2
    least_seconds = 8 * row["gigabytes_sent"] * 1e9 / 2e7
    assert row["run_hours"] * 3600 > least_seconds > row["compute_hours"] * 3600


def test_the_picture_has_a_line_and_a_name_for_each(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg", "T <&>", "y", {"one": [(8, 0.1), (64, 2.0)], "two": [(8, 0.5), (64, 2.0)]})
    tree = ElementTree.parse(tmp_path / "a.svg")
    names = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
    assert {"one", "two", "T <&>"} <= set(names)


def test_with_one_neighbour_at_a_time_more_nodes_are_not_further_apart() -> None:
    """Parameters travel to one neighbour at the close of a visit: the distance of 256 nodes is that of 32."""
    far = [apart(size, 0, mix_every=12, topology="pairs", codec="int4") for size in (32, 256)]
    assert far[1] == pytest.approx(far[0], rel=0.05)
    assert far[0] > 3.0, "one neighbour at a time is far from four at every step"
