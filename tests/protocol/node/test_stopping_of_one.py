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
