"""Whole clusters that stop early: no node alone, all before the same visit, whatever befalls them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deca_node.lab.sim.checks.audit import BLOCKS
from deca_node.lab.sim.checks.endings import check_stops
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.fake_trainer import FakeTrainer, fake_cluster
from deca_node.lab.sim.weather import Crash, Death, Pause, Weather, partition
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.run import RunSettings
from tests.defaults import default_policy

ROUNDS = 30
SETTINGS = RunSettings(rounds=ROUNDS, inner_steps=3, flush_mixes=1, topology="ring", early_stop_rounds=2)
NAMES = ("a", "b", "c", "d", "e")
LATEST = 5
"""The round after which the loss does not fall any more."""


def falling_until(best: int, shift: float = 0.0) -> Callable[[str], float]:
    """A loss that falls by a tenth per round up to round ``best``, by the name of the moment."""

    def loss(when: str) -> float:
        number = {"start": 0, "end": ROUNDS}.get(when) if " " not in when else int(when.split()[1])
        assert number is not None
        return shift + 3.0 - 0.1 * min(number, best)

    return loss


def cluster_of(
    seed: int, weather: Weather | None = None, names: tuple[str, ...] = NAMES, **changes: Any
) -> tuple[Cluster, Any]:
    settings = dataclasses.replace(SETTINGS, **{name: changes.pop(name) for name in list(changes) if name in RUN})
    policy = default_policy(**{"spread": 0.6, "open": 10.0, "step": 10.0, **changes})
    cluster, audit = fake_cluster(seed, names, settings, policy, weather or Weather())
    for number, name in enumerate(names):
        trainer = cluster.seats[name].trainer
        assert isinstance(trainer, FakeTrainer)
        trainer.loss = falling_until(LATEST, shift=float(number))
    return cluster, audit


RUN = {field.name for field in dataclasses.fields(RunSettings)}


def trained(cluster: Cluster, name: str) -> list[int]:
    """The activations with gradients that a node has begun, in order."""
    return [
        line.fact.activation.index
        for line in cluster.lines
        if line.node == name and isinstance(line.fact, c.Activate) and line.fact.activation.inner_steps
    ]


def stops(cluster: Cluster) -> dict[str, int | None]:
    return {name: seat.node.state.stopping.stop_at for name, seat in cluster.seats.items()}


def well(cluster: Cluster) -> Iterator[str]:
    assert {end.exit_code for end in cluster.ends.values()} == {0}
    assert all(": replay of" in broken for broken in cluster.broken_rules)
    yield from cluster.ends


@pytest.mark.parametrize("exchange", ["lockstep", "overlap"])
@pytest.mark.parametrize("seed", range(10))
def test_all_stop_before_the_same_visit(seed: int, exchange: str) -> None:
    cluster, audit = cluster_of(seed, exchange=exchange)
    cluster.run()
    (stop,) = set(stops(cluster).values())
    assert stop is not None and (LATEST + 2) * BLOCKS <= stop < (LATEST + 4) * BLOCKS + 10
    for name in well(cluster):
        assert trained(cluster, name) == list(range(stop))
        flush = [line for line in cluster.lines if line.node == name and isinstance(line.fact, e.Frozen)][-BLOCKS:]
        assert [line.fact.activation for line in flush] == list(range(ROUNDS * BLOCKS, (ROUNDS + 1) * BLOCKS))  # type: ignore[union-attr]
    assert audit.spread() < 1e-3, "the flush makes the copies agree"
    kept = [[command for command in kept_by(cluster, name) if command.number == command.until] for name in NAMES]
    assert kept == [kept[0]] * len(NAMES), "all keep the models of the same rounds"
    assert [command.number for command in kept[0]] == list(range(LATEST + 1))
    assert kept[0][-1].loss == pytest.approx(3.0 - 0.1 * LATEST + 2.0), "the mean over the nodes"


def kept_by(cluster: Cluster, name: str) -> list[c.KeepBest]:
    return [line.fact for line in cluster.lines if line.node == name and isinstance(line.fact, c.KeepBest)]


def test_every_round_but_the_start_is_a_candidate_until_it_is_judged() -> None:
    cluster, _ = cluster_of(4, rounds=6, early_stop_rounds=6)
    cluster.run()
    kept = [line.fact.keep for line in cluster.lines if line.node == "a" and isinstance(line.fact, c.Evaluate)]
    assert kept == ["", *(f"candidate-{number}" for number in range(1, 7)), ""]
    assert kept_by(cluster, "a")[-1].until == 6, "the last rounds are judged when the run is over"
    assert {kept_by(cluster, name)[-1].number for name in NAMES} == {LATEST}


def test_a_model_that_cannot_be_kept_is_told_and_the_run_goes_on() -> None:
    state = cluster_of(5)[0].seats["a"].node.state
    state.plan(BLOCKS)
    state.take_commands()
    state.measured(e.Evaluated("round 1", 1.0, 1, problem="the disk is full"))
    said = [command.sentence for command in state.take_commands() if isinstance(command, c.Report)]
    assert said == ["the model of round 1 is not kept: the disk is full"]


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_small_runs_stop_as_well(names: tuple[str, ...]) -> None:
    cluster, _ = cluster_of(0, names=names)
    cluster.run()
    (stop,) = set(stops(cluster).values())
    assert all(trained(cluster, name) == list(range(stop or 0)) for name in names)


@pytest.mark.parametrize("changes", [{"early_stop_rounds": 0}, {"tells_loss": False}, {"early_stop_rounds": 14}])
def test_a_run_goes_on_to_its_end(changes: dict[str, Any]) -> None:
    """Without the setting; if no member tells its loss; and as long as the loss falls."""
    cluster, _ = cluster_of(1, rounds=12, **changes)
    cluster.run()
    assert set(stops(cluster).values()) == {None}
    assert all(trained(cluster, name) == list(range(12 * BLOCKS)) for name in well(cluster))


def test_a_loss_is_measured_after_every_round_whatever_the_node_chose() -> None:
    cluster, _ = cluster_of(2, eval_every="never")
    cluster.run()
    assert len(set(stops(cluster).values())) == 1 and None not in stops(cluster).values()


@pytest.mark.parametrize("gain", [0.05, 0.25])
def test_a_gain_that_is_too_small_is_none(gain: float) -> None:
    """Every round up to the fifth gains 0.1, and two of them 0.2."""
    cluster, _ = cluster_of(3, early_stop_gain=gain)
    cluster.run()
    found = next(iter(stops(cluster).values())) or 0
    assert (found >= (LATEST + 2) * BLOCKS) == (gain < 0.1)


@pytest.mark.parametrize("seed", range(20))
def test_nodes_that_crash_pause_and_come_back_stop_with_the_others(seed: int) -> None:
    """A node may hear of the stop while it catches up, or after it has restarted from before it."""
    weather = Weather(
        crashes=(
            Crash("a", at=2.0 + seed / 2, back=1.0),
            Crash("b", at=4.0 + seed % 10 / 3, back=1.5, empty=seed % 2 == 0),
        ),
        deaths=(Death("c", at=3.0 + seed / 2),),
        pauses=(Pause("d", at=4.0 + seed / 4, seconds=2.0),),
    )
    cluster, _ = cluster_of(seed, weather, regather=5.0, alone=True)
    cluster.run()
    found = {stop for name, stop in stops(cluster).items() if name in cluster.ends}
    assert len(found) == 1, stops(cluster)
    (stop,) = found
    for name in well(cluster):
        past = [index for index in trained(cluster, name) if stop is not None and index >= stop]
        assert not past, f"{name} trained {past}, and the run stopped at {stop}"


@pytest.mark.parametrize("seed", range(5))
def test_a_member_that_is_gone_is_not_waited_for(seed: int) -> None:
    cluster, _ = cluster_of(seed, Weather(crashes=(Crash("a", at=3.0), Crash("b", at=4.0))))
    cluster.run()
    found = {stops(cluster)[name] for name in "cde"}
    assert len(found) == 1 and None not in found


def test_most_members_are_gone_and_the_rest_trains_on() -> None:
    """Two of five might be a small part of a broken network: they may not end the run for all."""
    weather = Weather(crashes=tuple(Crash(name, at=3.0) for name in "abc"))
    cluster, _ = cluster_of(0, weather)
    cluster.run()
    assert {stops(cluster)[name] for name in "de"} == {None}
    assert all(trained(cluster, name) == list(range(ROUNDS * BLOCKS)) for name in "de")


@pytest.mark.parametrize("seed", range(10))
def test_news_that_come_late_stop_every_node_all_the_same(seed: int) -> None:
    """News take longer than the announcement leaves: nodes stop at their next visit, or catch up with the others."""
    cluster, _ = cluster_of(seed, Weather(hearsay=(0.0, 4.0)), spread=0.1, alone=True, step=1.0, open=1.0)
    cluster.run()
    assert len(set(stops(cluster).values())) == 1
    stop = next(iter(stops(cluster).values()))
    assert stop is not None
    for name in well(cluster):
        assert len(trained(cluster, name)) < ROUNDS * BLOCKS / 2


@pytest.mark.parametrize("seed", range(10))
def test_only_the_larger_part_of_a_broken_network_stops_the_run_and_the_other_follows(seed: int) -> None:
    large, small, at, seconds = NAMES[:3], NAMES[3:], 2.0, 5.0 + seed / 4
    weather = Weather(cuts=partition(large, small, at, seconds))
    cluster, _ = cluster_of(seed, weather, topology="full", alone=True)
    cluster.hearsay.part(large, small, at, seconds)
    cluster.run()
    assert set(well(cluster)) == set(NAMES)
    check_stops(cluster)
    (stop,) = set(stops(cluster).values())
    assert stop is not None
    judged = {line.node for line in cluster.lines if "since no round" in str(line) and line.when < at + seconds}
    assert judged <= set(large)


def test_equal_parts_of_a_broken_network_train_on_until_they_meet() -> None:
    one, other = NAMES[:2], NAMES[2:4]
    cluster, _ = cluster_of(1, Weather(cuts=partition(one, other, 1.0, 9.0)), NAMES[:4], topology="full", alone=True)
    cluster.hearsay.part(one, other, 1.0, 9.0)
    cluster.run()
    announced = [line.when for line in cluster.lines if "stops-early" in str(line)]
    assert announced and min(announced) >= 10.0
    assert len(set(stops(cluster).values())) == 1 and set(well(cluster)) == set(NAMES[:4])
