"""A run over real gRPC against the dense NumPy simulation of the equations, step by step.

The simulation takes the gradients that the nodes recorded and nothing else; where it and the nodes' parameters
part, the engine, the exchange or the order of steps is wrong.
"""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from deca_node.lab.rigs.processes import NodeProcess
from deca_node.numerics.model.blocks import partition
from tests.e2e.testbed import Testbed
from tests.numerics.reference import Array, Method, full, metropolis, ring, simulate

NAMES = ("a", "b", "c", "d")
ROUNDS, STEPS, FLUSH, FINAL = 2, 4, 2, 3
GAMMA = 2e-3

GRAPHS = {"ring": ring(4), "full": full(4)}


def traced(node: NodeProcess) -> list[dict[str, Array]]:
    """All steps of a run in order."""
    paths = sorted((node.directory / "trace").iterdir())
    return [{key: value.astype(np.float64) for key, value in load_file(path).items()} for path in paths]


def run(testbed: Testbed, **flags: object) -> list[list[dict[str, Array]]]:
    testbed.peers(*NAMES)
    nodes = [
        testbed.start(
            name,
            trace=True,
            rounds=ROUNDS,
            inner_steps=STEPS,
            flush_mixes=FLUSH,
            final_flush_mixes=FINAL,
            learning_rate=GAMMA,
            eval_every="never",
            **flags,
        )
        for name in NAMES
    ]
    testbed.wait()
    return [traced(node) for node in nodes]


def starting_blocks(model: Path) -> list[tuple[Array, list[int]]]:
    """Every block's starting vector, and the sizes of its tensors."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    parameters = {name: p.detach().numpy().astype(np.float64).ravel() for name, p in loaded.named_parameters()}
    blocks = [[parameters[name] for name in block.parameters] for block in partition(loaded, 1)]
    return [(np.concatenate(tensors), [len(t) for t in tensors]) for tensors in blocks]


@pytest.mark.parametrize(
    ("topology", "method"),
    [
        ("full", Method(discrepancy="precond", h_into="m")),
        # Where a token was never seen, m and v of `rms` hold nothing but the rounding of e_ij, and with a tiny
        # epsilon their quotient is of order one: no two ways of rounding agree there.
        pytest.param("ring", Method(discrepancy="rms", h_into="both", epsilon=1e-4), marks=pytest.mark.slow),
        pytest.param("ring", Method(discrepancy="none"), marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else value.discrepancy,
)
def test_a_run_over_grpc_follows_the_equations_step_by_step(testbed: Testbed, topology: str, method: Method) -> None:
    """DESIGN of the engine, section 2: x_half, x+ = W x_half, h, m+ and v+, with codec fp32."""
    steps = run(
        testbed,
        topology=topology,
        codec="fp32",
        signal="none",
        discrepancy=method.discrepancy,
        h_into=method.h_into,
        beta1=method.beta1,
        beta2=method.beta2,
        epsilon=method.epsilon,
    )
    W = metropolis(GRAPHS[topology])
    x = [np.stack([start] * len(NAMES)) for start, _ in starting_blocks(testbed.model)]
    tensors = [sizes for _, sizes in starting_blocks(testbed.model)]
    at = 0
    for _ in range(ROUNDS):
        for block in range(len(x)):
            here = [[trace[at + r] for trace in steps] for r in range(STEPS + FLUSH)]
            gradients = [np.stack([node["gradient"] for node in nodes]) for nodes in here[:STEPS]]
            states = simulate(
                method,
                W,
                x[block],
                lambda r, _, gradients=gradients: gradients[r],
                gammas=[GAMMA] * STEPS,
                tensors=tensors[block],
            )
            expected = [state.x for state in states]
            for _ in range(FLUSH):
                expected.append(W @ expected[-1])
            for r, nodes in enumerate(here):
                np.testing.assert_allclose(np.stack([n["x"] for n in nodes]), expected[r], rtol=0, atol=2e-6)
            x[block] = expected[-1]
            at += STEPS + FLUSH
    for block in range(len(x)):
        for _ in range(FINAL):
            x[block] = W @ x[block]
            np.testing.assert_allclose(np.stack([trace[at]["x"] for trace in steps]), x[block], rtol=0, atol=2e-6)
            at += 1
    assert at == len(steps[0])


@pytest.mark.parametrize("codec", ["int8", pytest.param("int4", marks=pytest.mark.slow)])
def test_the_mean_over_nodes_is_preserved_by_every_mix(testbed: Testbed, codec: str) -> None:
    """DESIGN of the exchange, section 3: what one end of an edge adds the other takes, however coarse the codes."""
    steps = run(testbed, topology="erdos-renyi", codec=codec)
    moved = 0.0
    for nodes in zip(*steps, strict=True):
        before = np.stack([node["x_half"] for node in nodes])
        after = np.stack([node["x"] for node in nodes])
        np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), rtol=0, atol=5e-7)
        moved = max(moved, float(np.abs(after - before).max()))
    assert moved > 1e-4, "the mixes did something"
