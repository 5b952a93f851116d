"""The table of the hostile-node bench: the nodes that count, diverged runs, and cells that run once."""

import argparse

import pytest

from bench.hostile import cost
from bench.hostile.__main__ import ARMS, drawn, honest_loss, mean, plan, shown, table
from bench.hostile.cells import NODES
from deca_node.protocol.agreed.run import RunSettings


def losses(honest: float, hostile: float | None, of: int) -> list[list[float | None]]:
    """Rows are nodes. The last ``of`` nodes and texts are hostile."""
    kept = NODES - of
    return [[honest if i < kept and j < kept else hostile for j in range(NODES)] for i in range(NODES)]


def test_only_honest_nodes_on_honest_texts_count() -> None:
    assert honest_loss(losses(2.0, None, 2), 2) == 2.0
    assert honest_loss(losses(2.0, 5.0, 2), 1) != 2.0
    assert honest_loss(losses(2.0, None, 2), 1) is None
    assert mean([1.0, 2.0, None], 1) == 1.5 and mean([1.0, None], 0) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [([1.0, 2.0], "1.5000"), ([1.0, None], "diverged (1 of 2)"), ([1e16], "diverged (1 of 1)")],
)
def test_what_diverged_is_no_mean(values: list[float | None], words: str) -> None:
    assert shown(values) == words


def test_every_attack_meets_every_arm_and_stands_beside_the_run_without_it() -> None:
    """28 cells per seed, each with its own key. A row per attack, signal and number of hostile nodes."""
    cells = list(plan(2, quick=False))
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 28
    done = {cell.key: {"losses": losses(2.0, 3.0, 2)} for cell in cells}
    rows = table(cells, done, [4.0] * NODES)
    assert {(row["attack"], row["signal"]) for row in rows} == {
        ("none", "none"), ("noise", "none"), ("sign-flip", "none"), ("scaled", "none"), ("nan", "none"),
        ("none", "v"), ("inflated", "v"),
    }  # fmt: skip
    assert all(row["start"] == 4.0 and {"plain", "clip"} <= set(row["losses"]) <= set(ARMS) for row in rows)
    assert all(len(found) == 2 for row in rows for found in row["losses"].values())
    assert drawn(rows).row_count == len(rows) == 14


def test_the_price_of_clipping_names_the_arm_that_it_measures() -> None:
    """The default arm is among them, and every engine has the discrepancy of its row."""
    assert RunSettings.discrepancy in cost.DISCREPANCIES
    arguments = argparse.Namespace(elements=1 << 12, neighbours=2, turns=1, seed=0)
    rows = [cost.measure(discrepancy, "int8", arguments) for discrepancy in cost.DISCREPANCIES]
    assert [row["discrepancy"] for row in rows] == ["none", "precond"]
    engines = [cost.mixing(RunSettings(discrepancy=row["discrepancy"]), arguments)[0] for row in rows]
    assert [engine.hyper.needs_E for engine in engines] == [False, True], "only precond reads what flowed"
