"""Storms of membership: members that die, hang, restart, move, leave and lose each other, on a network that loses
packets.

When the troubles are over, the rules that :class:`~deca_node.lab.sim.swarm.Swarm` checks after every event are not all
that must hold. Every view must become the truth, and everything that was begun must end: suspicions, rumours,
questions. A calm network must be quiet.
"""

import random

from deca_node.lab.sim.swarm import Swarm, SwarmWeather
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import MemberState

ROUGH = SwarmWeather(lost=0.1, doubled=0.05, delay=(0.001, 0.2))

TROUBLES = ("kill", "pause", "pause", "partition", "cut", "restart", "second", "leave", "ready", "ready")

ONE_VIEW_SECONDS = 90.0
"""From the last trouble until all views are the truth. Those that two halves of a network take are the longest."""

CALM_SECONDS = 60.0
PACKETS_PER_MEMBER = 12.0
"""The most packets of a member per second on a calm network: a probe and its answer, whole lists now and then, and the
calls to seeds that are gone."""


def gossip_storm(seed: int) -> Swarm:
    """Run one storm of membership. Raises AssertionError, with the seed and the end of the transcript."""
    rng = random.Random(f"gossip:{seed}")
    swarm = Swarm(seed, ROUGH if rng.random() < 0.5 else None)
    addresses = swarm.cold_start(rng.choice([2, 3, 4, 5, 6]))
    swarm.run(10.0)
    for _ in range(rng.choice([1, 2, 4, 6])):
        if any(swarm.running()):
            trouble(swarm, addresses)
        swarm.run(rng.choice([0.1, 1.0, 5.0, 20.0]))
    swarm.weather = SwarmWeather()
    swarm.run(ONE_VIEW_SECONDS + 60.0, lambda: _over(swarm) and swarm.one_view())
    swarm.must(swarm.one_view(), "the views are not the truth")
    check_calm(swarm)
    return swarm


def _over(swarm: Swarm) -> bool:
    """Whether every process that was paused runs again, and no link is cut."""
    return swarm.whole and not any(seat.paused and not seat.gone for seat in swarm.seats.values())


def check_calm(swarm: Swarm) -> None:
    """Assert that a swarm with one view becomes quiet and stays right."""
    swarm.run(CALM_SECONDS)
    begun = swarm.packets.total()
    downs = len(swarm.heard(messages.MemberDown))
    swarm.run(CALM_SECONDS)
    running = list(swarm.running())
    swarm.must(swarm.one_view(), "the views did not stay the truth")
    swarm.must(len(swarm.heard(messages.MemberDown)) == downs, "a member was given up on a calm network")
    limit = PACKETS_PER_MEMBER * CALM_SECONDS * max(1, len(running))
    sent = swarm.packets.total() - begun
    swarm.must(sent <= limit, f"{sent} packets in {CALM_SECONDS:g} s on a calm network, at most {limit:g} are of use")
    for seat in running:
        told = seat.membership.rumours_left
        swarm.must(
            not told or len(running) == 1, f"{seat.name} still tells {told} rumours after {CALM_SECONDS:g} calm seconds"
        )
        suspected = [n for n, facts in seat.membership.members.items() if facts.state is MemberState.SUSPECT]
        swarm.must(not suspected, f"{seat.name} still suspects {suspected}")
        given_up = {name: facts for name, facts in seat.membership.members.items() if not facts.present}
        here = {other.name for other in running}
        swarm.must(not here & set(given_up), f"{seat.name} has given up members that are here: {here & set(given_up)}")


def trouble(swarm: Swarm, addresses: list[str]) -> None:
    """One random trouble, of one member or several."""
    rng = swarm.rng
    running = list(swarm.running())
    seat = rng.choice(running)
    everyone = rng.sample(sorted(swarm.seats), len(swarm.seats))
    match rng.choice(TROUBLES):
        case "kill" if len(running) > 1:
            swarm.kill(seat.address, rng.random() < 0.5)
        case "pause":
            swarm.pause(seat.address, rng.choice([0.5, 2.0, 5.0, 30.0]))
        case "partition":
            half = rng.randint(0, len(everyone))
            swarm.partition(everyone[:half], everyone[half:], rng.choice([5.0, 20.0, 60.0]))
        case "cut":
            swarm.cut(everyone[:1], everyone[1:4], rng.choice([5.0, 20.0, 60.0]))
        case "restart" if len(running) > 2:
            swarm.kill(seat.address)
            swarm.start(seat.name, rng.choice([seat.address, f"moved{swarm.now}:1"]), addresses)
        case "second":
            swarm.start(seat.name, f"second{swarm.now}:1", addresses, boot=rng.choice([0, len(swarm.seats)]))
        case "leave" if len(running) > 2:
            swarm.tell(seat.address, messages.Leave())
        case "ready":
            swarm.tell(seat.address, messages.SetReady(rng.randint(0, 9)))
