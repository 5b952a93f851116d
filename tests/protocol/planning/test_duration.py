"""The planned times, compared with a link that is simulated step by step and with formulas in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import machine_of
from deca_node.protocol.agreed.frames import frame_framing_bytes
from deca_node.protocol.planning.duration import (
    final_flush_seconds,
    flops_per_second,
    gradient_seconds,
    run_seconds,
    step_flops,
    transfer_seconds,
)
from tests.protocol.planning.cases import HIDDEN, MODEL, case


def simulated_overlap(computes: float, transfers: dict[int, float], inner_steps: int) -> float:
    """The trainer and the link, step by step. At an exchange the transfer before it must have arrived, at the last
    exchange also its own."""
    now = arrived = 0.0
    for inner in range(inner_steps):
        now += computes
        if inner in transfers:
            before, arrived = arrived, max(now, arrived) + transfers[inner]
            now = max(now, arrived if inner == inner_steps - 1 else before)
    return now


@given(
    steps=st.integers(1, 20),
    mix_every=st.integers(1, 7),
    signal_every=st.integers(1, 3),
    step_seconds=st.floats(0.01, 10.0),
    mbit=st.floats(0.01, 100.0),
)
def test_overlap_is_what_a_simulated_link_takes(
    steps: int, mix_every: int, signal_every: int, step_seconds: float, mbit: float
) -> None:
    link = machine_of(NodeSettings(), bits_per_second=1e6 * mbit)
    every = {"inner_steps": steps, "mix_every": mix_every, "signal_every": signal_every}
    planned = case(machine=link, exchange="overlap", signal="mv", **every)
    planned = planned.on(flops_per_second=flops_per_second(planned, step_seconds))
    layer = MODEL.blocks[1]
    found = gradient_seconds(planned, layer)
    exchanges = [i for i in range(steps) if i == steps - 1 or (i + 1) % mix_every == 0]
    sent = dict.fromkeys(exchanges, layer.frame_bytes["int8"] + 20)
    for inner in exchanges[:-1][::signal_every]:
        sent[inner] += layer.v_bytes + layer.m_bytes[8]
    transfers = {inner: transfer_seconds(planned, nbytes) for inner, nbytes in sent.items()}
    assert found.total == pytest.approx(simulated_overlap(found.compute / steps, transfers, steps))
    lockstep = gradient_seconds(planned.with_exchange("lockstep"), layer)
    assert lockstep.total == pytest.approx(found.compute + sum(transfers.values()))
    assert max(found.compute, found.transfer) <= found.total * (1 + 1e-9) <= lockstep.total * (1 + 2e-9)


def test_a_transfer_shares_the_link_among_the_neighbours() -> None:
    planned = case(topology="full", machine=machine_of(NodeSettings(), bits_per_second=8e3, latency_seconds=0.5))
    framed = 996 + frame_framing_bytes(1, 1, 996)
    assert transfer_seconds(planned, 996) == pytest.approx(0.5 + 4 * framed / 1e3)


def test_a_measured_step_sets_the_speed() -> None:
    planned = case()
    timed = planned.on(flops_per_second=flops_per_second(planned, 2.5))
    steps = [gradient_seconds(timed, b).compute / 5 for b in MODEL.blocks]
    assert sum(steps) / len(steps) == pytest.approx(2.5)
    assert steps[1] > steps[0] > steps[2], "a layer multiplies, an embedding only looks up, a head lies on top"
    again = run_seconds(timed.on(gradient_checkpointing=True))
    assert again.compute > run_seconds(timed).compute == pytest.approx(2 * 3 * 5 * 2.5)


def test_arithmetic_of_a_step() -> None:
    """2 per multiplied element forward, 2 back through the layers above, 2 for the block's own weights."""
    planned = case(sequence_length=16, batch_size=2)
    products, attention = 1500 + 1500 + 1000, 1 + 2 * 1
    assert step_flops(planned, MODEL.blocks[1]) == 2 * 16 * (2 * products + 4 * 16 * HIDDEN * attention)


def test_the_run_is_rounds_and_a_flush() -> None:
    planned = case(machine=machine_of(NodeSettings(), bits_per_second=1e5))
    keyframes, updates = (
        sum(transfer_seconds(planned, b.frame_bytes["int8"] + more) for b in MODEL.blocks) for more in (0, 20)
    )
    run = run_seconds(planned)
    # 2 rounds of a keyframe and 5 + 1 updates per block, then a flush of a keyframe and 3.
    assert run.transfer == pytest.approx((2 + 1) * keyframes + (2 * 6 + 3) * updates)
    assert final_flush_seconds(planned) == pytest.approx(keyframes + 3 * updates)
    assert run.total == pytest.approx(run.compute + run.transfer)
    assert run.bound_by == "network"
    assert run_seconds(planned.on(bits_per_second=1e15, latency_seconds=0.0)).bound_by == "compute"
