"""Calls beside the probes: to seeds that are missing, to suspected members, and to dead ones, which may live after all.

- Seeds are called at growing pauses until one answers. After that the missing seeds are called every now and then, for
  ever, so that two halves of a run that lost each other meet again.
- A suspected member is asked again and again by every member that suspects it. A refutation that travels as a rumour
  misses a member now and then, and a single member that has missed it would give the suspected one up for all.
- The dead are called at growing pauses, and forgotten after a day. The call tells a member that it is believed dead. If
  it hears that, it refutes.
"""

from collections.abc import Iterable

from deca_node.protocol.membership.facts import MemberFacts, MemberState
from deca_node.protocol.membership.messages import Ping, PushPull
from deca_node.protocol.membership.rumours import heldout_bytes
from deca_node.protocol.membership.view import MemberView

SEED_GROWTH = 1.6
RETRY_GROWTH = 1.5
FACTS_OVERHEAD = 64


class Contacts:
    """Calls to seeds, to the suspected and to the dead; whole lists, sent and asked for. With ``keep`` no member is
    ever forgotten."""

    def __init__(self, view: MemberView, keep: bool) -> None:
        self._view = view
        self._keep = keep
        self._seeds: dict[str, float] = {}
        self._asked: dict[int, str] = {}
        self._known_as: dict[str, str] = {}
        self._dead: dict[str, tuple[float, float]] = {}

    def ring(self, kind: str, what: str, now: float) -> None:
        """An alarm of this part rings."""
        match kind:
            case "seed":
                self.call_seed(what, now)
            case "retry":
                self.call_dead(what, now)
            case "doubt":
                self.ask_suspect(what, now)
            case _:
                self.exchange(now)

    # --- seeds --------------------------------------------------------------------------------------

    def set_seeds(self, addresses: Iterable[str], now: float) -> None:
        """Take these addresses as the seeds. New ones are called at once."""
        wanted = dict.fromkeys(address for address in addresses if address != self._view.own.address)
        for address in [address for address in self._seeds if address not in wanted]:
            self._drop_seed(address)
        for address in wanted:
            if address not in self._seeds:
                self._seeds[address] = self._view.profile.seed_pause
                self.call_seed(address, now)

    def call_seed(self, address: str, now: float) -> None:
        """Call a seed unless it is in the view, and set the alarm for the next time."""
        view = self._view
        if self._present(address):
            self._seeds[address] = view.profile.seed_pause
        else:
            seq = view.next_seq()
            self._asked = {asked: at for asked, at in self._asked.items() if at != address} | {seq: address}
            for page in self._pages(seq, wants_reply=True):
                view.call(address, page)
        pause = view.profile.seed_check if view.up else self._seeds[address]
        self._seeds[address] = min(self._seeds[address] * SEED_GROWTH, view.profile.seed_pause_max)
        view.alarms.set(("seed", address), now + view.jitter(pause))

    def seed_answered(self, seq: int, name: str) -> None:
        """The member ``name`` answered a call to a seed, so it lives at that address. It may be this node itself."""
        address = self._asked.pop(seq, None)
        if address is None or address not in self._seeds:
            return
        if name == self._view.own.name:
            self._drop_seed(address)
        else:
            self._known_as[address] = name

    def _drop_seed(self, address: str) -> None:
        del self._seeds[address]
        self._known_as.pop(address, None)
        self._view.alarms.cancel(("seed", address))

    def _present(self, address: str) -> bool:
        up = self._view.up
        return self._known_as.get(address) in up or any(facts.address == address for facts in up.values())

    # --- the suspected ------------------------------------------------------------------------------

    def doubt(self, name: str, now: float) -> None:
        """A member is suspected: ask it until it refutes or is given up."""
        self._view.alarms.set(("doubt", name), now + self._view.jitter(self._view.profile.probe_interval))

    def ask_suspect(self, name: str, now: float) -> None:
        """Ask a suspected member. The packet tells it that it is suspected."""
        self._view.send(self._view.members[name], Ping(self._view.next_seq(), name))
        self.doubt(name, now)

    # --- the dead -----------------------------------------------------------------------------------

    def bury(self, name: str, now: float) -> None:
        """A member was given up: call it now and then."""
        pause = self._view.profile.retry_pause
        self._dead[name] = (now, pause)
        self._view.alarms.set(("retry", name), now + self._view.jitter(pause))

    def settle(self, name: str) -> None:
        """Newer facts of the member have won: end the calls to it."""
        self._dead.pop(name, None)
        self._view.alarms.cancel(("doubt", name))
        self._view.alarms.cancel(("retry", name))

    def call_dead(self, name: str, now: float) -> None:
        """Call a dead member; or forget it, once it was dead for long enough."""
        view, facts = self._view, self._view.members.get(name)
        if facts is None or facts.state is not MemberState.DEAD:
            return
        since, pause = self._dead[name]
        if now - since > view.profile.forget and not self._keep:
            view.forget(name)
            self.settle(name)
            return
        view.send(facts, Ping(view.next_seq(), name))
        pause = min(pause * RETRY_GROWTH, view.profile.retry_pause_max)
        self._dead[name] = (since, pause)
        view.alarms.set(("retry", name), now + view.jitter(pause))

    # --- whole lists --------------------------------------------------------------------------------

    def exchange(self, now: float) -> None:
        """Compare lists with a member drawn by lot, and set the alarm for the next time."""
        for member in self._view.some(1):
            self.compare(member)
        self._view.alarms.set(("push-pull", ""), now + self._view.jitter(self._view.profile.push_pull_interval))

    def compare(self, member: MemberFacts) -> None:
        """Send a member the whole list, and ask for its own."""
        for page in self._pages(self._view.next_seq(), wants_reply=True):
            self._view.send(member, page)

    def answer(self, sender: MemberFacts, seq: int) -> None:
        """Send the whole list to a member that asked for it."""
        for page in self._pages(seq, wants_reply=False):
            self._view.send(sender, page)

    def _pages(self, seq: int, wants_reply: bool) -> list[PushPull]:
        """The whole list in as many packets as it takes. Only the first asks for a reply."""
        pages: list[list[MemberFacts]] = [[]]
        room = self._view.profile.push_pull_bytes_max
        for facts in self._view.members.values():
            nbytes = FACTS_OVERHEAD + len(facts.name) + len(facts.address) + heldout_bytes(facts.heldout)
            if nbytes > room:
                pages.append([])
                room = self._view.profile.push_pull_bytes_max
            pages[-1].append(facts)
            room -= nbytes
        return [PushPull(seq, tuple(page), wants_reply and index == 0) for index, page in enumerate(pages)]
