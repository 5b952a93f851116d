"""Figures of whole plans, number by number, and figures as text."""

import dataclasses

import pytest

from deca_node.protocol.planning.case import Case, Curve, Machine
from deca_node.protocol.planning.disk import folder_bytes
from deca_node.protocol.planning.duration import flops_per_second, run_seconds
from deca_node.protocol.planning.length import fitting_length, fitting_rate, fitting_sequence
from deca_node.protocol.planning.memory import Memory, block_memory, peak_memory
from deca_node.protocol.planning.presets import LADDER, choose, weigh
from deca_node.protocol.planning.traffic import planned_bytes
from deca_node.protocol.planning.units import bytes_text, seconds_text
from tests.protocol.planning.cases import MODEL, case

GPU = Machine(
    bits_per_second=1e6, latency_seconds=0.01, flops_per_second=1e9, micro_batch=2, gradient_checkpointing=True
)
TRACED = dataclasses.replace(
    MODEL,
    blocks=tuple(
        dataclasses.replace(block, activations=Curve(10.0, 2.0, 0.5), checkpointed=Curve(5.0, 1.0, 0.25))
        for block in MODEL.blocks
    ),
    frozen=100,
    layer=1000,
    together=300,
)


def plan(name: str) -> Case:
    """One of the plans below."""
    match name:
        case "ring":
            return case(machine=GPU)
        case "overlap":
            return case(machine=GPU, exchange="overlap", codec="int4", signal="mv", signal_every=2, mix_every=2)
        case "turns":
            few = {"moments_every": 1, "moment_bits": 1, "mix_every": 4, "partners": "step"}
            return case(machine=GPU, topology="pairs", degree=2, signal="mv", codec="int4", **few)
        case "ranks":
            machine = dataclasses.replace(GPU, ranks=2, one_memory=True, gradient_checkpointing=False, micro_batch=0)
            return dataclasses.replace(case(machine=machine, dtype="bfloat16"), model=TRACED)
        case "sharded":
            machine = dataclasses.replace(GPU, ranks=3, sharded=True)
            return dataclasses.replace(case(machine=machine, dtype="bfloat16", signal="v"), model=TRACED)
    assert name == "alone"
    return case(nodes=1, machine=GPU)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("ring", (7.10475776, 1.874592, 8.97934976)),
        ("overlap", (7.10475776, 1.2075839999999998, 7.89291776)),
        ("turns", (7.10475776, 0.9630879999999999, 8.067845759999999)),
        ("ranks", (2.7379302400000003, 1.874592, 4.61252224)),
        ("sharded", (2.6642841600000002, 1.876416, 4.540700159999999)),
        ("alone", (7.10475776, 0.0, 7.10475776)),
    ],
)
def test_seconds_of_a_run(name: str, seconds: tuple[float, float, float]) -> None:
    found = run_seconds(plan(name))
    assert dataclasses.astuple(found) == pytest.approx(seconds, rel=1e-9)
    assert found.bound_by == ("network" if seconds[1] > seconds[0] else "compute")


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        (
            "ring",
            Memory(
                block="embedding",
                model_bytes=18000,
                state_bytes=78000,
                activation_bytes=2080768,
                frames_bytes=24576,
                total_bytes=2176768,
                follower_bytes=0,
            ),
        ),
        (
            "overlap",
            Memory(
                block="embedding",
                model_bytes=18000,
                state_bytes=78000,
                activation_bytes=2080768,
                frames_bytes=73728,
                total_bytes=2176768,
                follower_bytes=0,
            ),
        ),
        (
            "turns",
            Memory(
                block="embedding",
                model_bytes=18000,
                state_bytes=78000,
                activation_bytes=2080768,
                frames_bytes=24576,
                total_bytes=2176768,
                follower_bytes=0,
            ),
        ),
        (
            "ranks",
            Memory(
                block="embedding",
                model_bytes=9200,
                state_bytes=87000,
                activation_bytes=528424,
                frames_bytes=24576,
                total_bytes=1201824,
                follower_bytes=552624,
            ),
        ),
        (
            "sharded",
            Memory(
                block="embedding",
                model_bytes=9668,
                state_bytes=106000,
                activation_bytes=132106,
                frames_bytes=24576,
                total_bytes=247774,
                follower_bytes=163774,
            ),
        ),
        (
            "alone",
            Memory(
                block="embedding",
                model_bytes=18000,
                state_bytes=42000,
                activation_bytes=2080768,
                frames_bytes=0,
                total_bytes=2140768,
                follower_bytes=0,
            ),
        ),
    ],
)
def test_memory_at_the_peak(name: str, memory: Memory) -> None:
    assert peak_memory(plan(name)) == memory


@pytest.mark.parametrize(
    ("name", "block", "memory"),
    [
        (
            "ranks",
            1,
            Memory(
                block="layers.0",
                model_bytes=9200,
                state_bytes=29000,
                activation_bytes=528424,
                frames_bytes=24576,
                total_bytes=1133824,
                follower_bytes=542624,
            ),
        ),
        (
            "ranks",
            2,
            Memory(
                block="head",
                model_bytes=9200,
                state_bytes=14500,
                activation_bytes=528424,
                frames_bytes=24576,
                total_bytes=1116824,
                follower_bytes=540124,
            ),
        ),
        (
            "sharded",
            1,
            Memory(
                block="layers.0",
                model_bytes=9668,
                state_bytes=35336,
                activation_bytes=132106,
                frames_bytes=24576,
                total_bytes=177110,
                follower_bytes=149110,
            ),
        ),
        (
            "sharded",
            2,
            Memory(
                block="head",
                model_bytes=9668,
                state_bytes=17668,
                activation_bytes=132106,
                frames_bytes=24576,
                total_bytes=159442,
                follower_bytes=145442,
            ),
        ),
        (
            "overlap",
            1,
            Memory(
                block="layers.0",
                model_bytes=18000,
                state_bytes=26000,
                activation_bytes=2080768,
                frames_bytes=73728,
                total_bytes=2124768,
                follower_bytes=0,
            ),
        ),
        (
            "overlap",
            2,
            Memory(
                block="head",
                model_bytes=18000,
                state_bytes=13000,
                activation_bytes=1228800,
                frames_bytes=73728,
                total_bytes=1259800,
                follower_bytes=0,
            ),
        ),
    ],
)
def test_memory_of_each_block(name: str, block: int, memory: Memory) -> None:
    made = plan(name)
    assert block_memory(made, made.model.blocks[block]) == memory


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("ring", (27072, 137160, 2492)),
        ("overlap", (27072, 69360, 1948)),
        ("turns", (17544, 31589, 1322)),
        ("ranks", (27072, 137160, 2492)),
        ("sharded", (27072, 137388, 2492)),
        ("alone", (0, 0, 0)),
    ],
)
def test_bytes_that_a_node_sends(name: str, sent: tuple[int, int, int]) -> None:
    assert dataclasses.astuple(planned_bytes(plan(name))["b" if name != "alone" else "a"]) == sent


def test_the_folder_of_a_run_that_may_stop_early() -> None:
    assert folder_bytes(case(early_stop_rounds=1), data_bytes=1000) == {
        "start": 18000,
        "blocks": 37800,
        "checkpoints": 72000,
        "incoming": 4680,
        "final": 18000,
        "best": 18000,
        "candidate": 36000,
        "tokens": 2000,
        "metrics.jsonl": 46080,
    }


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("ring", 118412629.33333333),
        ("ranks", 45632170.666666664),
    ],
)
def test_the_speed_of_a_machine_whose_steps_take_two_seconds(name: str, speed: float) -> None:
    assert flops_per_second(plan(name), 2.0) == pytest.approx(speed)


def test_every_rung_in_figures() -> None:
    weighed = list(weigh(plan("ring")))
    assert [(w.rung.name, w.exchange) for w in weighed] == [
        (rung.name, exchange) for rung in LADDER for exchange in ("lockstep", "overlap")
    ]
    assert [w.sent_bytes for w in weighed] == [
        235000,
        235000,
        164280,
        164280,
        146160,
        146160,
        146160,
        146160,
        70587,
        70587,
        70587,
        70587,
    ]
    assert [round(w.share, 3) for w in weighed] == [
        0.341,
        0.18,
        0.261,
        0.18,
        0.241,
        0.18,
        0.241,
        0.18,
        0.157,
        0.116,
        0.157,
        0.116,
    ]
    assert choose(weighed).rung.name == "lan"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((100.0, 1.0, 5, 1000000000.0), (1, 20)),
        ((59.0, 1.0, 5, 1000000000.0), (1, 11)),
        ((60.0, 1.0, 5, 1000000000.0), (1, 12)),
        ((10.0, 1.0, 5, 1000000000.0), (1, 4)),
        ((1200.0, 1.0, 5, 1000000000.0), (5, 48)),
        ((1000000.0, 0.5, 3, 100.0), (8, 48)),
        ((1000.0, 1.0, 4, 3.0), (1, 12)),
    ],
)
def test_lengths_that_fit(arguments: tuple[float, float, int, float], found: tuple[int, int]) -> None:
    length = fitting_length(*arguments)
    assert (length.rounds, length.inner_steps) == found
    assert length.seconds == length.rounds * length.inner_steps * arguments[2] * arguments[1]
    assert length.block_passes == length.rounds * length.inner_steps / arguments[3]


def test_a_hundred_records_fit_but_for_two() -> None:
    assert fitting_sequence([64] * 99 + [65] * 2, None) == 64
    assert fitting_sequence([64] * 98 + [65] * 3, None) == 128
    assert [fitting_rate(count) for count in (10**6, 10**9, 1_500_000_000, 10**12)] == [0.002, 6e-05, 5e-05, 5e-05]


# --- curves and text --------------------------------------------------------------------------------


def test_a_curve_goes_through_its_points() -> None:
    curve = Curve.through((10, 20, 40), [10.0 + 3.0 * n + 0.5 * n * n for n in (10, 20, 40)])
    assert dataclasses.astuple(curve) == pytest.approx((10.0, 3.0, 0.5))
    assert curve.at(2, 10) == 2 * 90 and curve.at(3, 0) == 30
    assert Curve(-5.0).at(4, 100) == 0, "no bytes below none"
    assert Curve(0.0, 0.3).at(1, 5) == 2, "rounded"


def test_curves_add_up_and_have_a_mean() -> None:
    curves = [Curve(1.0, 2.0, 3.0), Curve(3.0, 6.0, 4.0)]
    assert Curve.sum(curves) == Curve(4.0, 8.0, 7.0) and Curve.sum([]) == Curve()
    assert Curve.mean(curves) == Curve(2.0, 4.0, 3.5)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.4, "999 B"),
        (999.5, "1 kB"),
        (24_060, "24.1 kB"),
        (1_500_000, "1.5 MB"),
        (24.1e9, "24.1 GB"),
        (1.5e12, "1.5 TB"),
        (1e15, "1e+03 TB"),
    ],
)
def test_bytes_as_text(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (0.9999, "1e+03 ms"),
        (1.0, "1 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7199.0, "120 min"),
        (7200.0, "2 h"),
        (172_799.0, "48 h"),
        (172_800.0, "2.0 days"),
        (8.64e7, "1,000.0 days"),
    ],
)
def test_seconds_as_text(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_memory_that_is_just_enough_fits() -> None:
    first = next(weigh(plan("ring")))
    for more, fits in ((0, True), (-1, False)):
        made = plan("ring").on(memory_bytes=float(first.memory.total_bytes + more))
        assert next(weigh(made)).fits is fits


def test_another_degree_is_another_graph() -> None:
    regular = case(topology="random-regular", degree=2)
    assert regular.mixing.degree_max == 2 and regular.under(degree=3).mixing.degree_max == 3


def test_edges_are_whole_and_an_exchange_that_stays_keeps_its_gamma_c() -> None:
    made = case(gamma_c=0.3)
    assert str(made.mixing.edges) == "5"
    assert made.with_exchange("lockstep").settings.gamma_c == 0.3
    assert made.with_exchange("overlap").settings.gamma_c == 0.0
