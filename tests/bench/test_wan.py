"""``bench.wan``: the mean curve of several nodes, the first point at the target, and the run of each arm."""

import argparse
import math
from typing import Any

import pytest

from bench.links.wire import Line, Wire
from bench.wan.__main__ import DEFAULTS, curve, reached, run_settings, summary
from deca_node.protocol.agreed.run import RunSettings

GIVEN = argparse.Namespace(rounds=2, steps=16, length=16, batch=1, learning_rate=1e-3)


def node(first: float, losses: list[float], mega: float) -> list[dict[str, Any]]:
    """A node that measures a loss every ten seconds, after a visit of a step and a mix; and once more after the
    flush."""
    lines: list[dict[str, Any]] = [{"kind": "eval", "time": first, "loss": 9.0, "ordinal": 0}]
    for visit, loss in enumerate(losses, 1):
        step = {"kind": "step", "time": first + 10 * visit - 1, "ordinal": 2 * visit - 2, "round": 0}
        step |= {"bytes_sent": int(visit * mega * 1e6)}
        lines += [step | {"loss": 1.0}, step | {"ordinal": 2 * visit - 1}]
        lines += [{"kind": "eval", "time": first + 10 * visit, "loss": loss, "ordinal": 2 * visit}]
    flush = {"kind": "step", "time": first + 99, "ordinal": 2 * len(losses) + 3, "round": 1, "bytes_sent": 10**9}
    return [*lines, flush, {"kind": "eval", "time": first + 100, "loss": 0.0, "ordinal": 2 * len(losses) + 4}]


def test_a_curve_is_the_mean_of_all_nodes_from_the_last_one_s_start_on() -> None:
    found = curve([node(100.0, [8.0, 7.0], 1.0), node(102.0, [6.0, 5.0], 3.0)])
    assert [(row["seconds"], row["loss"], row["megabytes"]) for row in found] == [
        (0.0, 9.0, 0.0),
        (10.0, 7.0, 2.0),
        (20.0, 6.0, 4.0),
    ]
    assert reached(found, 7.0)["seconds"] == 10.0
    assert math.isinf(reached(found, 1.0)["seconds"]) and reached(found, 1.0)["loss"] == 6.0


def test_ratios_are_taken_within_a_turn() -> None:
    def turn(seconds: float, usual: float) -> dict[str, Any]:
        rows = {"home": {"seconds": seconds, "megabytes": 1.0}, DEFAULTS: {"seconds": usual, "megabytes": 10.0}}
        return {"arms": rows}

    home = summary([turn(10.0, 100.0), turn(30.0, 100.0), turn(20.0, 100.0)])["arms"]["home"]
    assert (home["seconds"], home["seconds_share"], home["megabytes_share"]) == (20.0, 0.2, 0.1)


def test_the_arms_differ_in_their_exchange_alone() -> None:
    usual, home = (run_settings(arm, GIVEN) for arm in (DEFAULTS, "home"))
    assert (usual.codec, usual.signal_every, usual.topology, usual.mix_every) == ("int8", 4, "erdos-renyi", 1)
    assert (home.codec, home.moment_bits, home.topology, home.mix_every) == ("int4", 1, "pairs", 16)
    same = ("inner_steps", "learning_rate", "batch_size", "sequence_length", "block_layers")
    assert all(getattr(usual, name) == getattr(home, name) for name in same)
    assert usual == RunSettings(
        rounds=2, inner_steps=16, final_flush_mixes=3, sequence_length=16, batch_size=1, learning_rate=1e-3
    )


def test_a_home_line_sends_slower_than_it_receives() -> None:
    wire = Wire(3, 100e6, 0.015, up_share=0.2)
    a, b, c = (Line("", "", 0) for _ in range(3))
    nbytes = 18_000
    assert wire._arrival(a, b, nbytes, 0.0) == pytest.approx(8 * nbytes / 20e6 + 0.015)
    assert wire._arrival(c, b, nbytes, 0.0) == pytest.approx(8 * nbytes / 20e6 + 0.015 + 8 * nbytes / 100e6)
