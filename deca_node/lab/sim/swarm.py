"""Many members on a fake clock and a bad network, and one seed for everything that is random.

A swarm does for all members what the daemon does for one: ``for command in membership.handle(event, now):
perform(command)``. The weather loses, delays, doubles and reorders packets. Processes stop, end, and start again
under the same name. After every event the rules of membership are checked. The swarm keeps a transcript, so that a
failing seed can be read.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from statistics import quantiles

from deca_node.lab.sim.fake_network import Agenda
from deca_node.lab.sim.weather import Range
from deca_node.protocol.agreed.identity import RunIdentity
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import MemberFacts, MemberState, draw_boot
from deca_node.protocol.membership.membership import Membership
from deca_node.protocol.membership.profiles import LAN, Profile

TAIL_LINES = 60
BACKLOG_PER_MEMBER = 16
"""The most alarms, rumours and open questions of a member per process that ever existed. More is a leak."""
THOROUGH_MAX = 32
"""In larger swarms not every rule is checked after every event."""
UNIX_START = 1.7e9


@dataclass(frozen=True, kw_only=True)
class SwarmWeather:
    """What the network does to packets. ``lost`` and ``doubled`` are chances. The sender does not notice a lost
    packet."""

    delay: Range = (0.001, 0.02)
    lost: float = 0.0
    doubled: float = 0.0
    refusal: Range = (0.001, 0.01)
    """Seconds until a sender learns that no process listens at an address."""
    start: Range = (0.0, 2.0)
    """The time of each member's start."""


@dataclass
class SwarmSeat:
    """One process: a membership at an address, and its state."""

    name: str
    address: str
    membership: Membership
    paused: bool = False
    gone: bool = False
    taken: str = ""
    """The sentence with which it ended, if another process had its name."""
    alarm_at: float | None = None
    inbox: deque[messages.MembershipEvent] = field(default_factory=deque)
    newest: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The greatest boot and incarnation of every name that it has believed. They never fall."""

    @property
    def running(self) -> bool:
        """Whether the process runs and is awake."""
        return not (self.gone or self.paused)


class Swarm:
    """``start`` members, let time ``run``, and read ``said``: (when, name, command) for all commands but Send."""

    def __init__(self, seed: int, weather: SwarmWeather | None = None, profile: Profile = LAN) -> None:
        self.seed = seed
        self.weather = weather or SwarmWeather()
        self.profile = profile
        self.agenda = Agenda()
        self.rng = random.Random(seed)
        self.seats: dict[str, SwarmSeat] = {}
        """By address, since several processes may have one name."""
        self.said: list[tuple[float, str, messages.MembershipCommand]] = []
        self.packets: Counter[str] = Counter()
        self._cuts: set[tuple[str, str]] = set()
        self._silent: set[str] = set()
        self._odd: SwarmSeat | None = None
        self._lines: deque[tuple[float, SwarmSeat, messages.MembershipCommand]] = deque(maxlen=TAIL_LINES)

    # --- what a test does ---------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds on the fake clock."""
        return self.agenda.now

    def start(
        self,
        name: str,
        address: str,
        seeds: Iterable[str],
        boot: int = 0,
        allowed: frozenset[str] | None = None,
        run: RunIdentity | None = None,
    ) -> SwarmSeat:
        """Start a process. Without ``boot`` it draws a boot epoch by the clock."""
        own = MemberFacts(name, address, boot or draw_boot(UNIX_START + self.now, self.rng))
        rng = random.Random(self.rng.getrandbits(64))
        seat = SwarmSeat(name, address, Membership(own, self.profile, rng, allowed, run))
        self.seats[address] = seat
        self._silent.discard(address)
        self._hear(seat, messages.Started(tuple(seeds)))
        return seat

    def _start_later(self, name: str, address: str, seeds: tuple[str, ...]) -> None:
        self.start(name, address, seeds)

    def cold_start(self, size: int, seeds: Iterable[str] | None = None) -> list[str]:
        """Start members n0, n1, ... one by one as the weather says, all with the same seeds (or with all addresses as
        seeds). Returns their addresses."""
        addresses = [f"h{index}:7001" for index in range(size)]
        known = tuple(addresses if seeds is None else seeds)
        for index, address in enumerate(addresses):
            at = self.rng.uniform(*self.weather.start)
            self.agenda.at(at, partial(self._start_later, f"n{index}", address, known))
        return addresses

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass, or less of it if ``until`` becomes true. Returns the time then."""
        end, done = self.now + seconds, False
        self.agenda.at(end, lambda: None)
        try:
            while self.now < end and not done:
                assert self.agenda.step(), "nothing is due any more"
                done = until is not None and until()
        except Exception as problem:
            problem.add_note(self.tail())
            raise
        return self.now

    def must(self, holds: bool, what: str) -> None:
        """Raise AssertionError with the seed and the end of the transcript unless ``holds``."""
        assert holds, f"{what}\n{self.tail()}"

    def tail(self) -> str:
        """The seed and the end of the transcript."""
        lines = (f"{when:9.3f} {seat.name}@{seat.address} {_told(command)}" for when, seat, command in self._lines)
        return f"swarm seed {self.seed} at {self.now:.3f} s; the transcript ends with\n" + "\n".join(lines)

    # --- troubles -----------------------------------------------------------------------------------

    def kill(self, address: str, silent: bool = False) -> None:
        """End a process. With ``silent`` its machine is gone too, and senders learn nothing."""
        self.seats[address].gone = True
        if silent:
            self._silent.add(address)

    def pause(self, address: str, seconds: float) -> None:
        """Stop a process for a while. Packets to it wait."""
        seat = self.seats[address]
        seat.paused = True
        self.agenda.at(self.now + seconds, partial(self._resume, seat))

    def cut(self, senders: Iterable[str], receivers: Iterable[str], seconds: float) -> None:
        """Lose all packets from ``senders`` to ``receivers``. The other direction works."""
        pairs = {(a, b) for a in senders for b in receivers}
        self._cuts |= pairs
        self.agenda.at(self.now + seconds, partial(self._cuts.difference_update, pairs))

    def partition(self, side: Iterable[str], other: Iterable[str], seconds: float) -> None:
        """Lose all packets between two groups."""
        side, other = tuple(side), tuple(other)
        self.cut(side, other, seconds)
        self.cut(other, side, seconds)

    def tell(self, address: str, event: messages.MembershipEvent) -> None:
        """Give a process an event from outside, such as Leave."""
        self._hear(self.seats[address], event)

    # --- what is to be seen -------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether packets pass between all addresses."""
        return not self._cuts

    def running(self) -> Iterator[SwarmSeat]:
        """The processes that take part."""
        return (seat for seat in self.seats.values() if seat.running and not seat.membership.ended)

    def one_view(self) -> bool:
        """Whether every running member believes exactly the running ones to be alive, with their true boots and
        addresses."""
        seats = list(self.running())
        truth = {seat.name: seat.membership.own for seat in seats}
        # A member that disagreed the last time most likely still does, so it is asked first.
        seats.sort(key=lambda seat: seat is not self._odd)
        self._odd = next((seat for seat in seats if seat.membership.view() != truth), None)
        return len(truth) == len(seats) and self._odd is None

    def given_up(self, name: str) -> bool:
        """Whether no running member counts ``name`` in its view."""
        return all(name not in seat.membership.view() for seat in self.running() if seat.name != name)

    def heard(self, kind: type[messages.MembershipCommand]) -> list[tuple[float, str, messages.MembershipCommand]]:
        """All commands of one kind, with their times and members."""
        return [line for line in self.said if isinstance(line[2], kind)]

    # --- one member ---------------------------------------------------------------------------------

    def _hear(self, seat: SwarmSeat, event: messages.MembershipEvent) -> None:
        if seat.gone:
            return
        if seat.paused:
            seat.inbox.append(event)
            return
        commands = seat.membership.handle(event, self.now)
        for command in commands:
            self._perform(seat, command)
        self._check(seat, commands)
        deadline = seat.membership.next_deadline()
        if deadline is not None and deadline != seat.alarm_at:
            seat.alarm_at = deadline
            self.agenda.at(deadline, partial(self._wake, seat, deadline))

    def _wake(self, seat: SwarmSeat, deadline: float) -> None:
        # An alarm that was moved meanwhile has no effect.
        if seat.alarm_at == deadline and seat.running:
            seat.alarm_at = None
            self._hear(seat, DeadlinePassed())

    def _resume(self, seat: SwarmSeat) -> None:
        """Wake a process. It finds its packets and its overdue deadline, in either order."""
        seat.paused, seat.alarm_at = False, None
        if self.rng.random() < 0.5:
            self._hear(seat, DeadlinePassed())
        while seat.inbox:
            self._hear(seat, seat.inbox.popleft())
        self._hear(seat, DeadlinePassed())

    def _perform(self, seat: SwarmSeat, command: messages.MembershipCommand) -> None:
        self._lines.append((self.now, seat, command))
        if isinstance(command, messages.Send):
            self._send(seat, command)
            return
        self.said.append((self.now, seat.name, command))
        if isinstance(command, messages.NameTaken):
            seat.taken = command.sentence

    def _check(self, seat: SwarmSeat, commands: list[messages.MembershipCommand]) -> None:
        """Check the rules of one member. In a large swarm only the cheap ones are checked."""
        membership = seat.membership
        assert membership.backlog <= BACKLOG_PER_MEMBER * (len(self.seats) + 1), f"{seat.name} piles up work"
        if len(self.seats) > THOROUGH_MAX:
            return
        view = membership.view()
        assert seat.name not in membership.members, f"{seat.name} has itself among the others"
        for name, facts in membership.members.items():
            known = (facts.boot, facts.incarnation)
            assert known >= seat.newest.get(name, known), f"{seat.name} went back on {name}: {facts}"
            seat.newest[name] = known
            assert (name in view) == (facts.state <= MemberState.SUSPECT), f"{name} is in no clear state"

    # --- the network --------------------------------------------------------------------------------

    def _send(self, seat: SwarmSeat, command: messages.Send) -> None:
        weather, rng = self.weather, self.rng
        self.packets[type(command.packet.body).__name__] += 1
        target = self.seats.get(command.address)
        if (seat.address, command.address) in self._cuts or command.address in self._silent:
            return
        if target is None or target.gone or target.membership.ended:
            failed = messages.SendFailed(command.address)
            self.agenda.at(self.now + rng.uniform(*weather.refusal), partial(self._hear, seat, failed))
            return
        for _ in range(1 + (rng.random() < weather.doubled)):
            if rng.random() >= weather.lost:
                event = messages.PacketReceived(command.packet)
                self.agenda.at(self.now + rng.uniform(*weather.delay), partial(self._hear, target, event))


def _told(command: messages.MembershipCommand) -> str:
    match command:
        case messages.Send(address, _, messages.Packet(_, body, rumours, _)):
            news = " ".join(f"{r.facts.name}:{r.facts.state}/{r.facts.incarnation}" for r in rumours)
            what = f"PushPull of {len(body.members)}" if isinstance(body, messages.PushPull) else str(body)
            return f"    to {address}: {what} [{news}]"
        case messages.Changed(members):
            return f"view: {' '.join(sorted(members))}"
        case _:
            return f"{type(command).__name__}: {command.sentence}"


# --- figures ----------------------------------------------------------------------------------------

SwarmFigures = dict[str, dict[str, float]]


def figures(seeds: Iterable[int], size: int = 8, profile: Profile = LAN) -> SwarmFigures:
    """Seconds on the fake clock over many seeds: from the last start to one view; from a kill (the machine vanishes)
    until all have given the member up; and from the end of a partition in halves of 60 s to one view."""
    found: dict[str, list[float]] = {"cold start": [], "detection": [], "heal": []}
    for seed in seeds:
        for trouble in ("detection", "heal"):
            swarm = Swarm(seed, profile=profile)
            addresses = swarm.cold_start(size)
            swarm.run(swarm.weather.start[1])
            found["cold start"].append(_seconds(swarm, swarm.one_view))
            swarm.run(20.0)
            if trouble == "detection":
                swarm.kill(addresses[-1], silent=True)
                found[trouble].append(_seconds(swarm, partial(swarm.given_up, f"n{size - 1}")))
            else:
                swarm.partition(addresses[: size // 2], addresses[size // 2 :], 60.0)
                swarm.run(60.0)
                found[trouble].append(_seconds(swarm, swarm.one_view))
    return {what: _distribution(times) for what, times in found.items()}


def _seconds(swarm: Swarm, until: Callable[[], bool]) -> float:
    start = swarm.now
    return swarm.run(600.0, until) - start


def _distribution(times: list[float]) -> dict[str, float]:
    cuts = quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "worst": max(times)}
