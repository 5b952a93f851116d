"""The verdict follows from the numbers, whichever way they fall."""

import math

import pytest
from rich.console import Console

from deca_node.lab.report.result import DemoReport, Losses, NodeResult, result_table, rows, verdict

START = (5.0, 6.0)


def report(
    together: tuple[Losses, Losses],
    alone: tuple[Losses | None, Losses | None] = (None, None),
    difference: float = 0.0,
    start: Losses = START,
) -> DemoReport:
    nodes = tuple(
        NodeResult(name=name, corpus=corpus, together=t, alone=a)
        for name, corpus, t, a in zip(("a", "b"), ("asyncio", "email"), together, alone, strict=True)
    )
    return DemoReport(title="t", facts=(), start=start, nodes=nodes, parameter_difference_max=difference)


def text(of: DemoReport, width: int = 120) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(result_table(of))
    return capture.get()


ALONE = ((4.0, 6.5), (5.5, 5.0))  # means 5.25 and 5.25


@pytest.mark.parametrize(
    ("together", "said"),
    [
        (((4.2, 5.2), (4.2, 5.2)), "Every copy tuned together is better than every model tuned alone"),
        (((4.2, 5.2), (5.1, 5.5)), "better than training alone on average, but not in every pair"),
        (((5.0, 5.8), (5.0, 5.8)), "no better than training alone"),
        (((5.5, 6.5), (5.5, 6.5)), "did not improve on the starting model"),
        (((math.nan, 5.0), (4.0, 5.0)), "training diverged"),
        (((math.inf, 5.0), (4.0, 5.0)), "training diverged"),
    ],
)
def test_together_against_alone(together: tuple[Losses, Losses], said: str) -> None:
    assert said in " ".join(verdict(report(together, ALONE)))


def test_the_means_are_told() -> None:
    said = " ".join(verdict(report(((4.2, 5.2), (4.2, 5.2)), ALONE)))
    assert "together reach 4.700 nats per token on average" in said
    assert "starting model has 5.500" in said
    assert "nodes alone reach 5.250" in said


def test_what_it_costs_on_the_own_text_is_told() -> None:
    said = " ".join(verdict(report(((4.2, 5.2), (4.2, 5.2)), ALONE)))
    assert "On its own text, 2 of 2 nodes would have done better alone" in said
    assert "the own-text loss is 0.200 higher together" in said


def test_without_runs_alone_nothing_is_said_about_them() -> None:
    said = " ".join(verdict(report(((4.2, 5.2), (4.2, 5.2)))))
    assert "lowered the loss; nodes alone were not run" in said


@pytest.mark.parametrize(
    ("difference", "said"),
    [(0.0, "are equal in every parameter"), (2.5e-7, "at most 2.5e-07"), (math.nan, "cannot be compared")],
)
def test_agreement_of_the_copies(difference: float, said: str) -> None:
    assert said in verdict(report(((4.2, 5.2), (4.2, 5.2)), ALONE, difference))[-1]


def test_one_node_has_nobody_to_train_with() -> None:
    node = NodeResult(name="a", corpus="email", together=(4.0,), alone=(4.0,))
    alone = DemoReport(title="t", facts=(), start=(5.0,), nodes=(node,), parameter_difference_max=0.0)
    assert any("no joint training" in sentence for sentence in verdict(alone))


def test_rows_are_every_model_and_the_means() -> None:
    labels = [row.label for row in rows(report(((4.2, 5.2), (4.4, 5.2)), ALONE))]
    assert labels == ["starting model", "a alone", "b alone", "mean alone", "a together", "b together", "mean together"]
    assert rows(report(((4.2, 5.2), (4.4, 5.2))))[-1].losses == pytest.approx((4.3, 5.2))


def test_the_terminal_table_holds_every_number() -> None:
    drawn = text(report(((4.2, 5.2), (4.3, 5.3)), ALONE))
    for number in ("5.000", "6.500", "5.250", "4.200", "5.300", "4.700", "asyncio", "email"):
        assert number in drawn


def test_markup_in_names_is_text() -> None:
    node = NodeResult(name="[red]", corpus="[/bold]", together=(4.0,))
    odd = DemoReport(title="t", facts=(), start=(5.0,), nodes=(node,), parameter_difference_max=0.0)
    assert "[red] together" in text(odd) and "[/bold]" in text(odd)


def test_losses_that_do_not_match_the_nodes_are_a_bug() -> None:
    with pytest.raises(ValueError, match="one loss per node"):
        report(((4.2, 5.2), (4.2, 5.2)), start=(5.0,))
