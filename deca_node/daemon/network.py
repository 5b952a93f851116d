"""Everything of a node that other nodes see: one server, the streams to members, and the transfer of blocks.

::

    endpoint    the server, and channels to other nodes, with the node's certificate
    control     small messages: membership's packets, positions, round trips
    swim        the membership: who takes part
    transport   one stream per member, for keyframes and updates
    carrier     relays the connections of other members that cannot dial each other
    detours     leads to members that cannot be dialled, through one that relays
    donor       gives block versions to late nodes
    fetcher     fetches block versions from donors when this node is late
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.control import ControlLinks, Foreign
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.membership import Swim
from deca_node.daemon.links.transport import Transport
from deca_node.daemon.logs import log, log_failure, say
from deca_node.daemon.relay.carrier import CALLS_MAX, Carrier
from deca_node.daemon.relay.detours import Detours
from deca_node.daemon.relay.messages import SERVICE as RELAY_SERVICE
from deca_node.daemon.relay.survey import Surveyor
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.address import Address, local_address, parse_address
from deca_node.daemon.settings.lookup import SeedLookup
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.own_address import OwnAddress, read_seeds
from deca_node.daemon.settings.sources import run_as_toml
from deca_node.daemon.transfer.donor import Donor
from deca_node.daemon.transfer.fetcher import Fetcher
from deca_node.daemon.transfer.stock import held_versions
from deca_node.daemon.wire.endpoint import Context, Endpoint, Stream
from deca_node.daemon.wire.health import Health
from deca_node.daemon.wire.throttle import Throttle
from deca_node.process.memory import return_memory
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.identity import identity_of
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.errors import DecaError, WireError
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import MemberFacts, draw_boot
from deca_node.protocol.membership.membership import Membership
from deca_node.protocol.membership.profiles import PROFILES
from deca_node.protocol.quarantine import QuarantineRules
from deca_node.protocol.refusals import Problem
from deca_node.storage.folder import read_heldout

DAY_SECONDS = 86_400.0
MEMORY_SECONDS = 15.0
"""The time between two returns of free memory to the system."""
RELAY_STAY_SECONDS = 10.0
"""A node that has finished the run relays for others for so long at most."""
FAREWELL_SECONDS = 0.5
"""The time that the other members have to hear that this node leaves for good."""


class Network:
    """The network side of one node. ``tell`` takes events for the node, ``position`` gives the activation on which it
    works, and ``lost_name`` is called with a sentence where another process holds its name."""

    def __init__(
        self,
        run: RunSettings,
        settings: NodeSettings,
        own: OwnAddress,
        directory: Path,
        security: Security,
        tell: Callable[[e.Event], None],
        position: Callable[[], int],
        lost_name: Callable[[str], None],
    ) -> None:
        rng = random.SystemRandom()
        self._settings = settings
        self._own = own
        self._directory = directory
        self._tell = tell
        self._lost_name = lost_name
        self._agreement: Agreement | None = None
        self._view = messages.Changed({})
        self._addresses: dict[str, Address] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._seeds = SeedLookup(lambda found: self.swim.tell(messages.SeedsChanged(found)), say)
        self._foreign: dict[str, str] = {}
        self.security = security
        security.on_unwelcome = self._drop
        self.refusals = Refusals(QuarantineRules(first=settings.quarantine_seconds))
        known = identity_of(run, security.federation)
        identity = Identity(own.name, draw_boot(time.time(), rng), position, str(own.advertise), known)
        self.endpoint = Endpoint(own.listen, security.credentials, security.verify, self.refusals.count)
        throttle = Throttle(settings.max_upload * 1e6 / 8)
        self.detours, self.carrier = self._detours(), self._carrier(throttle)
        self.endpoint.add_streams(RELAY_SERVICE, {"Carry": self.carrier.answer}, CALLS_MAX)
        self.transport = Transport(identity, self.endpoint, tell, self.refusals, throttle, self.detours)
        self.refusals.on_quarantine = self.transport.drop
        heldout = read_heldout(directory, run)
        facts = MemberFacts(own.name, str(own.advertise), identity.boot, ready_from=0, heldout=heldout)
        membership = Membership(
            facts, PROFILES[settings.network], random.Random(rng.getrandbits(64)), own.allowed, known
        )
        self.control = ControlLinks(
            identity,
            self.endpoint,
            on_packet=lambda name, _address, payload: self.swim.packet(name, payload),
            on_progress=lambda peer, activation: tell(e.PeerProgress(peer, activation)),
            on_fail=lambda _name, address: self.swim.failed(address),
            admits=security.welcome,
            on_foreign=self._met_foreign,
            book=self.refusals,
            relays=settings.relay,
            detours=self.detours,
        )
        self.swim = Swim(membership, self._send, self, self.refusals)
        self.donor = Donor(
            directory,
            position,
            lambda: self._agreement,
            run_as_toml(run),
            _shared_model(settings),
            (Throttle(settings.transfer_upload * 1e6 / 8), throttle),
            self._verify_asker,
        )
        self.fetcher = Fetcher(directory, self.endpoint.channel, say, name=own.name, blame=self.refusals.blame)
        self.health = Health()
        surveyor = Surveyor(self._verify_asker, security.may_dial, self.control.linked, relays=settings.relay)
        self.endpoint.add(*self.donor.handlers(), self.health.handlers(), surveyor.handlers())

    def _detours(self) -> Detours:
        return Detours(
            self._own.name,
            self.endpoint.dial,
            self._relays,
            lambda: local_address(self.endpoint.address),
            time.monotonic,
            lambda peer, sentence: say(sentence, peer=peer),
        )

    def _carrier(self, throttle: Throttle) -> Carrier:
        relayed = Throttle(self._settings.relay_upload * 1e6 / 8)
        return Carrier(
            self._own.name,
            self._settings.relay_pairs if self._settings.relay else 0,
            (relayed, throttle),
            self._verify_relayed,
            lambda name: name in self._addresses,
            self.refusals.count,
            say,
        )

    @property
    def own_host(self) -> str:
        """The host at which others reach this node."""
        return self._own.advertise.host

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to answer callers and to look for members. Raises AddressError where the address cannot be taken."""
        await self.endpoint.start()
        self.swim.tell(messages.Started(()))
        self._seeds.set_seeds(self._own.seeds)
        self._begin(self._warn_daily())
        self._begin(self._return_memory())

    async def close(self, *, leaving: bool) -> None:
        """Send what is queued, then end. ``leaving``: tell the members that this node leaves for good."""
        self._seeds.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if leaving and self.carrier.relayed():
            # Two others may be at their last exchange, which is shorter than what it takes them to find another way.
            await self.transport.close()
            await self.carrier.idle(RELAY_STAY_SECONDS)
        if leaving:
            self.swim.tell(messages.Leave())
            await asyncio.sleep(FAREWELL_SECONDS)
        self.swim.close()
        self.donor.close()
        await self.transport.close()
        await self.control.close()
        self.carrier.close()
        await self.endpoint.stop()
        await self.detours.close()

    def reload(self) -> None:
        """Read the allow-list, the deny-list and the peers file again. A malformed file changes nothing."""
        for what, read in (("lists", self.security.reload), ("peers file", self._read_seeds)):
            try:
                read()
            except DecaError as problem:
                log.error("the %s: %s; the content read before still holds", what, problem)
            else:
                log.info("the %s: read again", what)
        if self._view.members:
            self._apply_view()

    def _read_seeds(self) -> None:
        self._seeds.set_seeds(read_seeds(self._settings, self._own))

    # --- members ------------------------------------------------------------------------------------

    def view_changed(self, view: messages.Changed) -> None:
        """The members have changed."""
        self._view = view
        self._apply_view()

    def _apply_view(self) -> None:
        """Dial the members that are welcome, and tell the node about them."""
        known = {name: facts for name, facts in self._view.members.items() if self.security.welcome(name)}
        addresses = {name: facts.address for name, facts in known.items() if name != self._own.name}
        may_dial = self.security.may_dial
        self._addresses = {name: parse_address(address) for name, address in addresses.items() if may_dial(address)}
        self.detours.keep(self._addresses)
        self.carrier.keep({*self._addresses})
        self.transport.set_peers(self._addresses)
        seen = messages.Changed(known)
        self._tell(e.MembersChanged(seen.ready_from, seen.heldout))

    def _met_foreign(self, met: Foreign) -> None:
        """A node of another run: one that this node expects disagrees with it, any other is a stranger. An address
        keeps the first name that was said there, so that one process cannot disagree under many names."""
        listed = self._own.named.get(met.address)
        if met.called or listed == met.name:
            name = listed or self._foreign.setdefault(met.address, met.name or met.address)
            self._tell(e.PeerRefused(name, met.sentence))
        else:
            self.swim.tell(messages.StrangerCalled(met.name, met.address, met.sentence))

    def _verify_asker(self, context: Context | None, name: str) -> None:
        """Check that a caller of one question may use its name and is welcome. Raises WireError."""
        try:
            self.security.verify(context, name)
            self.refusals.check(name)
        except WireError as problem:
            self.refusals.count(problem.reason)
            raise

    def _verify_relayed(self, stream: Stream, name: str) -> None:
        """Check that a caller that asks for a relay may use its name and is welcome. Raises WireError."""
        stream.verify(name)
        self.refusals.check(name)

    def _relays(self) -> Mapping[str, Address]:
        """The members that relay and to which a control stream is up."""
        return {name: self._addresses[name] for name in self.control.relays() if name in self._addresses}

    def name_taken(self, sentence: str) -> None:
        """Another process holds this node's name."""
        self._lost_name(sentence)

    def _send(self, name: str, address: str, payload: bytes) -> None:
        if self.security.may_dial(address):
            self.control.send(name, address, payload)

    def announce(self, activation: int) -> None:
        """Tell the members from which activation on this node counts in the graph."""
        self.swim.tell(messages.SetReady(activation))

    def announce_heldout(self, heldout: Heldout) -> None:
        """Tell the members about this node's held-out losses, and when the run stops early."""
        self.swim.tell(messages.SetHeldout(heldout))

    def _drop(self, name: str, why: str) -> None:
        """A list was changed, and this member is no longer welcome."""
        say(f"{name} is no longer welcome: {why}", "warning", peer=name)
        self.control.drop(name, why)

    def problems(self) -> dict[str, Problem]:
        """Why there is no stream to a peer, why a member was given up, or why a seed has no address, by name."""
        named = self._own.named
        seeds = {named.get(str(seed), str(seed)): Problem("", why) for seed, why in self._seeds.problems.items()}
        lost = {name: Problem("", sentence) for name, sentence in self.swim.lost.items()}
        return {**seeds, **self.transport.problems(), **lost}

    # --- catching up --------------------------------------------------------------------------------

    def meet(self, agreement: Agreement) -> None:
        """The run is known: begin to serve late nodes."""
        self._agreement = agreement

    def fetch(self, at_least: int, expected: Mapping[str, int]) -> None:
        """Fetch the missing block versions from the members. The node is told Fetched or FetchFailed."""
        self._begin(self._fetch(at_least, expected))

    async def _fetch(self, at_least: int, expected: Mapping[str, int]) -> None:
        assert self._agreement is not None
        before, began = self.fetcher.traffic.copy(), time.monotonic()
        try:
            have = await asyncio.to_thread(held_versions, self._directory)
            donors = {name: at for name, at in self._addresses.items() if not self.refusals.is_held(name)}
            fetched = await self.fetcher.fetch(donors, at_least, have, self._agreement, expected)
        except (DecaError, OSError) as problem:
            # Whatever failed, the node waits for an answer, and asks again after a pause.
            self._tell(e.FetchFailed(str(problem)))
            return
        log.info("%s", fetch_report(self.fetcher.traffic - before, time.monotonic() - began))
        self._tell(fetched)

    async def _warn_daily(self) -> None:
        while True:
            warning = self.security.warning()
            if warning:
                log.warning("%s", warning)
            await asyncio.sleep(DAY_SECONDS)

    async def _return_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_SECONDS)
            return_memory()

    def _begin(self, work: "Coroutine[None, None, None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        log_failure(task)


def fetch_report(traffic: "Counter[str]", seconds: float) -> str:
    """A sentence about a finished fetch. ``traffic`` counts as :mod:`deca_node.daemon.transfer.download` says."""
    donors = sorted(kind.removeprefix("bytes_from.") for kind in traffic if kind.startswith("bytes_from."))
    given = f"{traffic['bytes']:,} bytes from {', '.join(donors)}" if donors else "nothing new"
    lost = f"; donors lost: {traffic['donors_lost']}" if traffic["donors_lost"] else ""
    return f"fetched {given} in {seconds:.1f} s; bytes fetched twice: {traffic['bytes_resent']:,}{lost}"


def _shared_model(settings: NodeSettings) -> Path | None:
    folder = Path(settings.model)
    return folder if settings.share_model and settings.model and folder.is_dir() else None
