"""One node, and whether the run stops early: what it tells, what it hears, what it judges."""

import dataclasses
from typing import Any

from deca_node.lab.sim.checks.audit import BLOCKS
from deca_node.protocol import commands as c
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.node.roster import Roster
from deca_node.protocol.node.stopping import Stopping
from tests.defaults import default_policy

ROUNDS = 30
SETTINGS = RunSettings(rounds=ROUNDS, inner_steps=3, flush_mixes=1, topology="ring", early_stop_rounds=2)


def stopping(said: list[c.Command], own: Heldout | None = None, **policy: Any) -> Stopping:
    roster = Roster("a", ("a", "b", "c"), SETTINGS, None)
    return Stopping("a", SETTINGS, default_policy(**policy), roster, own or Heldout(), said.append)


def test_the_earliest_announcement_counts_and_is_told_on() -> None:
    said: list[c.Command] = []
    one = stopping(said)
    for announced in (40, 50, 30):
        one.heard({"b": Heldout(stop_at=announced)})
    assert one.stop_at == 30
    assert [command.heldout.stop_at for command in said if isinstance(command, c.AnnounceHeldout)] == [40, 30]
    schedule = Schedule(SETTINGS, BLOCKS, 2)
    first = Step(ROUNDS * BLOCKS, 0)
    assert one.after(Step(29, 0), schedule) == Step(29, 0)
    assert one.after(Step(30, 0), schedule) == one.after(Step(33, 0), schedule) == first
    assert one.after(Step(30, 2), schedule) == Step(30, 2), "a visit that was begun is ended first"
    assert one.after(Step(first.activation + 1, 0), schedule) == Step(first.activation + 1, 0)


def test_half_of_a_broken_network_does_not_stop_the_run() -> None:
    """Of four members two see each other only. With a third they are most of them."""
    said: list[c.Command] = []
    roster = Roster("a", ("a", "b", "c", "d"), SETTINGS, None)
    one = Stopping("a", SETTINGS, default_policy(spread=0.0), roster, Heldout(), said.append)
    one.visited(1.0)
    for number in range(4):
        one.measured(number, 2.0, tokens=10)
    told = Heldout(tuple((number, 2.0) for number in range(4)))
    schedule = Schedule(SETTINGS, BLOCKS, 2)
    roster.know({"a": 0, "b": 0})
    one.heard({"b": told})
    one.judge(7, schedule)
    assert one.stop_at is None
    roster.know({"a": 0, "b": 0, "c": 0})
    one.heard({"b": told, "c": told})
    roster.heard("c", 9)
    one.judge(7, schedule)
    assert one.stop_at == 10, "one visit past the member that is farthest"


def test_the_first_loss_of_a_round_stands() -> None:
    """Others may have judged by it. A node that is started again measures some rounds twice."""
    said: list[c.Command] = []
    one = stopping(said, Heldout(((0, 3.0), (1, 2.5))))
    one.measured(1, 9.0, tokens=10)
    assert one.own.losses == ((0, 3.0), (1, 2.5)) and not said
    one.measured(2, float("nan"), tokens=10)
    one.measured(3, 2.0, tokens=0)
    assert one.own.losses == ((0, 3.0), (1, 2.5), (2, None), (3, None))


def test_a_private_node_tells_no_loss() -> None:
    one = stopping([], tells_loss=False)
    one.measured(0, 2.0, tokens=10)
    assert one.own.losses == ((0, None),)


def test_a_run_that_may_not_stop_early_listens_to_no_announcement() -> None:
    said: list[c.Command] = []
    off = Stopping(
        "a",
        dataclasses.replace(SETTINGS, early_stop_rounds=0),
        default_policy(),
        Roster("a", (), SETTINGS, None),
        Heldout(),
        said.append,
    )
    off.heard({"b": Heldout(stop_at=3)})
    off.measured(0, 1.0, tokens=1)
    assert off.stop_at is None and not said


class Judge:
    """Node a of a run of blocks by two, with b and c, and what it says of the losses that it hears."""

    def __init__(self, rounds: int = 9) -> None:
        self.said: list[c.Command] = []
        settings = dataclasses.replace(SETTINGS, rounds=rounds)
        self.roster = Roster("a", ("a", "b", "c"), settings, None)
        self.one = Stopping("a", settings, default_policy(spread=6.0), self.roster, Heldout(), self.said.append)
        self.schedule = Schedule(settings, 2, 1)

    def told(self, *losses: float, by: str = "bc") -> "Judge":
        """This node measures these losses, and others tell the same."""
        for number, loss in enumerate(losses):
            self.one.measured(number, loss, tokens=1)
        self.one.heard({name: Heldout(tuple(enumerate(losses))) for name in by})
        return self

    def best(self) -> list[tuple[int, float, int]]:
        return [(s.number, s.loss, s.until) for s in self.said if isinstance(s, c.KeepBest)]

    def reports(self) -> list[str]:
        return [s.sentence for s in self.said if isinstance(s, c.Report)]


def test_the_end_is_announced_as_far_ahead_as_news_takes() -> None:
    """News takes 6 s and a visit 2.5: three visits, and one more."""
    judge = Judge().told(3.0, 2.0, 2.0, 2.5)
    judge.one.visited(2.5)
    judge.one.judge(6, judge.schedule)
    assert judge.best() == [(1, 2.0, 3)] and judge.one.stop_at == 10
    assert judge.reports() == [
        "the run stops early, before activation 10, since no round after round 1 has a lower held-out loss than 2.0000"
    ]
    judge.one.judge(6, judge.schedule)
    assert len(judge.best()) == 1, "a round is judged once"


def test_no_end_is_announced_so_late_that_it_saves_nothing() -> None:
    for rounds, stop in ((5, None), (6, 10)):
        judge = Judge(rounds).told(3.0, 2.0, 2.0, 2.5)
        judge.one.visited(2.5)
        judge.one.judge(6, judge.schedule)
        assert judge.one.stop_at == stop and judge.best() == [(1, 2.0, 3)]


def test_patience_counts_the_rounds_after_the_best() -> None:
    for losses, stop in (((3.0, 2.0, 2.0), None), ((3.0, 2.0, 2.0, 2.0), 8)):
        judge = Judge().told(*losses)
        judge.one.visited(6.0)
        judge.one.judge(6, judge.schedule)
        assert judge.one.stop_at == stop and judge.best() == [(1, 2.0, len(losses) - 1)]


def test_a_round_waits_for_those_that_took_part_in_it_until_the_next_is_measured() -> None:
    judge = Judge().told(3.0, 2.0, by="b")
    judge.one.judge(2, judge.schedule)
    assert judge.best() == [(0, 3.0, 0)], "c has not told yet, so only the round before is judged"
    judge.one.heard({"c": Heldout(((1, 2.75),))})
    judge.one.judge(2, judge.schedule)
    assert judge.best()[1:] == [(1, 2.25, 1)]
    late = Judge().told(3.0, 2.0, by="b")
    late.roster.know({"a": 0, "b": 0, "c": 1})
    late.one.judge(2, late.schedule)
    assert late.best() == [(1, 2.0, 1)], "c came after the round had begun"


def test_a_member_that_tells_no_loss_does_not_hold_up_the_others() -> None:
    judge = Judge().told(3.0, 2.0, by="b")
    judge.one.heard({"c": Heldout(((0, None), (1, None)))})
    judge.one.judge(2, judge.schedule)
    assert judge.best() == [(1, 2.0, 1)], "two of three are more than half"
    judge = Judge().told(3.0, by="")
    judge.one.heard({name: Heldout(((0, None),)) for name in "bc"})
    judge.one.judge(0, judge.schedule)
    assert judge.best() == [], "one of three is not"


def test_the_last_rounds_are_judged_when_the_run_is_over() -> None:
    judge = Judge().told(3.0, 2.5, by="")
    judge.one.judge_last()
    judge.one.judge_last()
    assert judge.best() == [(1, 2.5, 1)]
    nothing = Judge()
    nothing.one.judge_last()
    assert nothing.said == []
    others = Judge()
    others.one.heard({name: Heldout(((0, 3.0), (1, 2.0))) for name in "bc"})
    others.one.judge_last()
    assert others.said == [], "this node has measured nothing"
    first = Judge().told(3.0, by="")
    first.one.judge_last()
    assert first.best() == [(0, 3.0, 0)]


def test_an_announcement_of_another_is_told_on_with_its_reason() -> None:
    judge = Judge()
    judge.one.heard({"b": Heldout(), "c": Heldout(stop_at=7)})
    assert judge.reports() == ["the run stops early, before activation 7, as another member announces"]
    judge.one.heard({"b": Heldout(stop_at=7)})
    assert len(judge.reports()) == 1
    judge.one.heard({"a": Heldout(((0, 1.0),))})
    assert judge.one.own == Heldout(stop_at=7), "it does not learn its own losses from others"
