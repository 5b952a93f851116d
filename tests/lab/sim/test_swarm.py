"""The promises of membership, on many seeds of a bad network. A failing seed prints the end of its transcript.

The swarm itself checks its rules after every event.
"""

import sys
from collections.abc import Iterator

import pytest

from deca_node.lab.sim.gossip_storms import ROUGH, trouble
from deca_node.lab.sim.swarm import Swarm, SwarmWeather, figures
from deca_node.protocol.agreed.identity import identity_of
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.commands import Report
from deca_node.protocol.membership import messages


def settled(seeds: range, size: int = 8, weather: SwarmWeather | None = None) -> Iterator[tuple[Swarm, list[str]]]:
    """Swarms with one view, 20 s after their start, with the members' addresses."""
    for seed in seeds:
        swarm = Swarm(seed, weather)
        addresses = swarm.cold_start(size)
        swarm.run(20.0)
        if weather is None:
            swarm.must(swarm.one_view(), "no one view after 20 s")
        yield swarm, addresses


def seconds_to_one_view(swarm: Swarm, limit: float) -> float:
    start = swarm.now
    swarm.run(limit, swarm.one_view)
    swarm.must(swarm.one_view(), f"no one view within {limit} s")
    return swarm.now - start


def test_eight_nodes_with_the_same_seeds_come_to_one_view_within_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken = []
    for seed in range(100):
        swarm = Swarm(seed)
        swarm.cold_start(8)
        swarm.run(swarm.weather.start[1])
        taken.append(seconds_to_one_view(swarm, 10.0 - swarm.now))
    with capsys.disabled():
        sys.stdout.write(f"\n100 cold starts of 8: one view at most {max(taken):.2f} s after the last start\n")


def test_one_valid_seed_among_dead_ones_is_enough() -> None:
    for seed in range(30):
        swarm = Swarm(seed)
        swarm.cold_start(8, ["gone:1", "gone:2", "h5:7001", "gone:3"])
        swarm.run(swarm.weather.start[1])
        seconds_to_one_view(swarm, 8.0)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_killed_node_is_given_up_by_all_within_fifteen_seconds(size: int, silent: bool) -> None:
    for swarm, addresses in settled(range(20), size):
        swarm.kill(addresses[0], silent)
        swarm.run(15.0, lambda swarm=swarm: swarm.given_up("n0"))
        swarm.must(swarm.given_up("n0"), "n0 is in a view after 15 s")
        seconds_to_one_view(swarm, 15.0)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_pause_of_two_seconds_is_never_a_death(size: int) -> None:
    for swarm, addresses in settled(range(40), size):
        swarm.pause(addresses[0], 2.0)
        swarm.run(25.0)
        swarm.must(not swarm.heard(messages.MemberDown), "given up")
        swarm.must(swarm.one_view(), "no one view")


def test_after_thirty_seconds_of_standing_still_a_node_refutes_and_is_back() -> None:
    for swarm, addresses in settled(range(20)):
        swarm.pause(addresses[3], 30.0)
        swarm.run(29.0)
        swarm.must(swarm.given_up("n3"), "not given up")
        swarm.run(1.0)
        seconds_to_one_view(swarm, 5.0)
        swarm.run(30.0)
        downs = {command.name for _, _, command in swarm.heard(messages.MemberDown)}
        swarm.must(downs == {"n3"}, f"given up: {downs}; who overslept must accuse nobody")


def test_two_halves_that_lost_each_other_for_a_minute_are_one_within_a_minute() -> None:
    for swarm, addresses in settled(range(20)):
        swarm.partition(addresses[:4], addresses[4:], 60.0)
        swarm.run(60.0)
        downs = len(swarm.heard(messages.MemberDown))
        swarm.must(downs == 32, f"{downs} of 32 members of the other side are given up")
        seconds_to_one_view(swarm, 60.0)
        swarm.run(20.0)
        swarm.must(len(swarm.heard(messages.MemberDown)) == downs, "the meeting itself cost somebody its life")


def test_ten_per_cent_of_loss_kill_nobody_in_ten_minutes() -> None:
    for swarm, _ in settled(range(2), 16, ROUGH):
        swarm.run(600.0)
        swarm.must(not swarm.heard(messages.MemberDown), "given up")
        seconds_to_one_view(swarm, 30.0)


def test_a_link_cut_one_way_is_bridged_by_others() -> None:
    for swarm, addresses in settled(range(15)):
        swarm.cut(addresses[:1], addresses[1:2], 60.0)
        swarm.run(60.0)
        swarm.must(not swarm.heard(messages.MemberDown), "given up")
        seconds_to_one_view(swarm, 30.0)


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boot", [0, 1], ids=["later boot", "clock behind"])
def test_a_second_process_under_a_name_ends_with_a_sentence(boot: int) -> None:
    for swarm, addresses in settled(range(20)):
        second = swarm.start("n3", "other:1", addresses, boot=boot)
        swarm.run(10.0, lambda second=second: second.membership.ended)
        swarm.must("'n3' is taken" in second.taken, "the newcomer goes on")
        swarm.run(20.0)
        seconds_to_one_view(swarm, 30.0)
        swarm.must(not swarm.seats[addresses[3]].membership.ended, "the elder has ended")


@pytest.mark.parametrize("boot", [0, 1], ids=["later boot", "clock behind"])
@pytest.mark.parametrize("address", ["h3:7001", "new:1"])
def test_a_restarted_process_is_let_in_quickly(address: str, boot: int) -> None:
    for swarm, addresses in settled(range(20)):
        swarm.kill(addresses[3], silent=address == "new:1")
        swarm.run(0.5)
        swarm.start("n3", address, addresses, boot=boot)
        seconds_to_one_view(swarm, 15.0)
        swarm.run(20.0)
        swarm.must(swarm.one_view(), "the view did not last")


def test_a_name_taken_on_both_sides_of_a_partition_stays_with_the_elder() -> None:
    for swarm, addresses in settled(range(20)):
        swarm.partition(addresses[:4], [*addresses[4:], "second:1"], 60.0)
        swarm.run(40.0)
        second = swarm.start("n0", "second:1", addresses)
        swarm.run(20.0)
        swarm.must(not second.membership.ended, "the sides met early")
        seconds_to_one_view(swarm, 60.0)
        swarm.must(bool(second.taken) and not swarm.seats[addresses[0]].taken, "the wrong one has ended")


def test_a_node_that_hung_while_its_name_passed_on_gives_way() -> None:
    for swarm, addresses in settled(range(10)):
        swarm.pause(addresses[3], 40.0)
        swarm.run(10.0)
        second = swarm.start("n3", "new:1", addresses)
        swarm.run(31.0)
        seconds_to_one_view(swarm, 30.0)
        swarm.must(bool(swarm.seats[addresses[3]].taken) and not second.taken, "the wrong one has ended")


def test_a_member_that_leaves_is_gone_at_once_and_may_come_back() -> None:
    for swarm, addresses in settled(range(10)):
        swarm.tell(addresses[3], messages.Leave())
        seconds_to_one_view(swarm, 2.0)
        swarm.run(20.0)
        swarm.must(
            len(swarm.heard(messages.MemberLeft)) == 7 and not swarm.heard(messages.MemberDown), "it did not leave"
        )
        swarm.start("n3", addresses[3], addresses)
        seconds_to_one_view(swarm, 5.0)


def test_static_membership_keeps_strangers_out() -> None:
    swarm = Swarm(1)
    addresses = [f"h{index}:1" for index in range(3)]
    for index, address in enumerate(addresses):
        swarm.start(f"n{index}", address, addresses, allowed=frozenset(("n0", "n1", "n2")))
    swarm.start("stranger", "s:1", addresses)
    swarm.run(20.0)
    for address in addresses:
        assert set(swarm.seats[address].membership.view()) == {"n0", "n1", "n2"}
        assert swarm.seats[address].membership.counters["names_refused"] > 0


def test_two_runs_that_meet_through_one_seed_line_stay_two() -> None:
    """One node of run y has a line of run x in its peers file. Its calls go on for ever, and change no view."""
    runs = {name: identity_of(RunSettings(run_name=name)) for name in "xy"}
    for seed in range(10):
        swarm = Swarm(seed)
        addresses = {name: [f"{name}{index}:1" for index in range(4)] for name in "xy"}
        for name, own in addresses.items():
            for address in own:
                seeds = [*own, addresses["x"][2]] if address == "y0:1" else own
                swarm.start(f"{address.partition(':')[0]}", address, seeds, run=runs[name])
        swarm.run(120.0)
        for name, own in addresses.items():
            for address in own:
                membership = swarm.seats[address].membership
                swarm.must(set(membership.view()) == {f"{name}{index}" for index in range(4)}, "a run has strangers")
                swarm.must(set(membership.members) <= set(membership.view()), "a stranger is remembered")
        told = [(name, command.about) for _, name, command in swarm.said if isinstance(command, Report)]
        swarm.must(told == [("x2", "y0")], f"not named once by the one that is called: {told}")
        swarm.must(not swarm.heard(messages.MemberDown), "a member was given up")


# --- everything at once, and size -------------------------------------------------------------------


def test_whatever_happens_one_view_comes_of_it() -> None:
    for seed in range(30):
        swarm = Swarm(seed, ROUGH if seed % 2 else None)
        addresses = swarm.cold_start(3 + seed % 6)
        swarm.run(10.0)
        for _ in range(6):
            if any(swarm.running()):
                trouble(swarm, addresses)
            swarm.run(swarm.rng.choice([0.1, 1.0, 5.0, 20.0, 40.0]))
        swarm.run(60.0)
        swarm.weather = SwarmWeather()
        seconds_to_one_view(swarm, 90.0)


def test_256_members_come_to_one_view() -> None:
    swarm = Swarm(1)
    swarm.cold_start(256, ["h0:7001", "h1:7001", "h2:7001"])
    swarm.run(swarm.weather.start[1])
    assert seconds_to_one_view(swarm, 30.0) < 15.0


def test_one_seed_gives_one_transcript() -> None:
    tails = []
    for _ in range(2):
        (swarm, addresses), *_ = settled(range(7, 8), weather=ROUGH)
        swarm.kill(addresses[2])
        swarm.run(20.0)
        tails.append(swarm.tail())
    assert tails[0] == tails[1]
    assert "swarm seed 7" in tails[0]


def test_figures_tell_distributions() -> None:
    found = figures(range(3), size=4)
    assert set(found) == {"cold start", "detection", "heal"}
    assert all(0 <= times["p50"] <= times["p99"] <= times["worst"] <= 60.0 for times in found.values())
