"""What the owner of a running node sees of it and asks of it, through the socket in its folder and over HTTP."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from deca_node.daemon.links.hearsay import Heard
from deca_node.daemon.logs import EventLog
from deca_node.daemon.network import Network
from deca_node.daemon.settings.address import Address, is_loopback
from deca_node.daemon.status.book import Sources, StatusBook
from deca_node.daemon.status.facts import MemberRow, RelayRow, RunRow, Spread, Status, Verb
from deca_node.daemon.status.lives import FIRST, Life
from deca_node.daemon.web.admin_socket import AdminSocket
from deca_node.daemon.web.dashboard import add_dashboard
from deca_node.daemon.web.guard import guard
from deca_node.daemon.web.server import Server, application
from deca_node.daemon.wire.meters import LagMeter, Quantiles
from deca_node.protocol import events as e
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.membership.facts import MemberProgress
from deca_node.protocol.node.phases import Phase
from deca_node.protocol.node.state import NodeState
from deca_node.storage.folder import METRICS

PROGRESS_SECONDS = 2.0
"""Time between two tellings of this node's progress to the other members."""
HEALTH_SECONDS = 1.0
"""Time between two updates of the gRPC health service."""


class Administration:
    """Implements :class:`~deca_node.daemon.status.facts.NodeAdmin`. ``tell`` takes the requests as events, ``warning``
    gives a sentence about this machine for as long as it holds."""

    def __init__(
        self,
        node: NodeState,
        network: Network,
        tell: Callable[[e.Event], None],
        warning: Callable[[], str] = str,
        life: Life = FIRST,
        *,
        tells_losses: bool = True,
    ) -> None:
        self._node = node
        self._network = network
        self._tell = tell
        self._tells_losses = tells_losses
        self._page = ""
        self._told: MemberProgress | None = None
        network.swim.hearsay.own = lambda: self._told
        self._lag = LagMeter()
        self._admin: AdminSocket | None = None
        self._http: Server | None = None
        self._watches: list[asyncio.Task[None]] = []
        transport = network.transport
        sources = Sources(
            addresses=lambda: {name: str(facts.address) for name, facts in network.swim.membership.members.items()},
            traffic=transport.traffic,
            problems=network.problems,
            refusals=lambda: network.refusals.counts,
            quarantines=lambda: network.refusals.quarantines,
            quarantined=network.refusals.held,
            tls_handshakes=lambda: network.security.handshakes,
            tls_callers=lambda: network.security.callers,
            rtt=lambda: {peer: spread for peer, f in network.control.rtt().items() if (spread := _spread(f))},
            members=self.members,
            relay_of=network.detours.via,
            relayed_with=lambda: network.detours.nbytes,
            relays=lambda: [
                RelayRow(pair=found.pair, streams=found.streams, bytes=found.nbytes)
                for found in network.carrier.relayed()
            ],
            relayed_bytes=lambda: network.carrier.nbytes,
            lag=lambda: _spread(self._lag.figures()),
            certificate_expires=self._expires,
            warning=warning,
            life=life,
        )
        self.book = StatusBook(node, sources)

    async def open(self, directory: Path, events: EventLog, http: Address | None, http_token: str) -> None:
        """Begin to answer. Raises AddressError if the address for HTTP cannot be taken, SettingsError if the file
        ``http_token`` holds no token."""
        self._lag.start()
        self._admin = AdminSocket(self, events, directory)
        await self._admin.open()
        if http:
            self._page = _page_of(http, self._network.own_host)
            self.book.history.recall(directory / METRICS)
            self._http = Server(self._application(events, guard(http.host, http_token)))
            await self._http.listen_tcp(http)
        self._watches = [asyncio.ensure_future(work) for work in (self._tell_health(), self._tell_progress())]

    async def close(self) -> None:
        """End answering."""
        for watch in self._watches:
            watch.cancel()
        if self._admin:
            await self._admin.close()
        if self._http:
            await self._http.close()
        self._lag.close()

    def status(self) -> Status:
        """The node now."""
        return self.book.status()

    def members(self) -> list[MemberRow]:
        """All members that the membership knows, this node included."""
        membership = self._network.swim.membership
        everybody = [membership.own, *membership.members.values()]
        held = self._network.refusals.held()
        return [
            MemberRow(
                name=facts.name,
                address=str(facts.address),
                state=str(facts.state),
                boot=facts.boot,
                incarnation=facts.incarnation,
                ready_from=facts.ready_from,
                quarantined_until=held[facts.name].until if facts.name in held else None,
                quarantine=held[facts.name].why if facts.name in held else "",
            )
            for facts in sorted(everybody, key=lambda facts: facts.name)
        ]

    def run(self) -> list[RunRow]:
        """The progress of all members, as they have told it."""
        heard = self._network.swim.hearsay.all()
        return [
            RunRow(name=member.name, state=member.state, own=True, **_told(self._told))
            if member.name == self._node.name
            else RunRow(name=member.name, state=member.state, **_heard(heard.get(member.name)))
            for member in self.members()
        ]

    def _progress(self, beat: int) -> MemberProgress:
        """What this node tells the others of itself."""
        status, boot = self.status(), self._network.swim.membership.own.boot
        at, losses = status.position, self._tells_losses
        return MemberProgress(
            name=status.name,
            boot=boot,
            beat=beat,
            phase=status.phase,
            done=at.done if at else 0,
            total=at.total if at else 0,
            round=at.round if at else 0,
            block=at.block if at else 0,
            loss=status.train_loss if losses else None,
            heldout_loss=status.heldout_loss if losses else None,
            steps_per_second=status.steps_per_second if losses else None,
            sent_bytes=status.sent_bytes_total,
            received_bytes=status.received_bytes_total,
            peers_up=sum(peer.state == "up" for peer in status.peers),
            page=self._page,
        )

    async def _tell_progress(self) -> None:
        for beat in itertools.count(1):
            self._told = self._progress(beat)
            await asyncio.sleep(PROGRESS_SECONDS)

    async def ask(self, verb: Verb) -> str:
        """Pass a request on; returns a sentence about its effect. Raises SettingsError if it has no effect now."""
        phase = self._node.phase
        if verb is Verb.RESUME and not self._node.pausing:
            raise SettingsError(f"{self._node.name} is not paused; it is {phase}")
        if verb is Verb.CHECKPOINT and phase is not Phase.VISITING:
            raise SettingsError(f"{self._node.name} is not training now ({phase}); its last checkpoint is up to date")
        if verb is Verb.PAUSE and phase is Phase.STAYING:
            raise SettingsError(f"{self._node.name} has nothing to pause: the run is complete")
        event, sentence = _ASKED[verb]
        self._tell(event)
        return f"{self._node.name} {sentence}"

    def _application(self, events: EventLog, pass_on: Middleware) -> web.Application:
        app = application(self)
        app.middlewares.append(pass_on)
        add_dashboard(app, self.book.history, events)
        return app

    def _expires(self) -> float | None:
        left = self._network.security.expires_in_seconds
        return None if left is None else time.time() + left

    async def _tell_health(self) -> None:
        while True:
            await self._network.health.say(self.book.ready)
            self.book.look()
            await asyncio.sleep(HEALTH_SECONDS)


def _page_of(http: Address, own_host: str) -> str:
    """The address of this node's page for others: empty if only this machine reaches it and members are elsewhere."""
    if is_loopback(http.host):
        return str(http) if is_loopback(own_host) else ""
    anywhere = http.host in ("0.0.0.0", "::")
    return str(Address(own_host, http.port)) if anywhere else str(http)


def _heard(heard: Heard | None) -> dict[str, Any]:
    return {**_told(heard.progress), "age_seconds": heard.age_seconds} if heard else {}


def _told(progress: MemberProgress | None) -> dict[str, Any]:
    """The fields of a row. A member that has not loaded its model has no place yet."""
    if progress is None:
        return {}
    told = dataclasses.asdict(progress)
    unknown = ("name", "boot", "beat", *(() if progress.total else ("done", "total", "round", "block")))
    return {name: value for name, value in told.items() if name not in unknown}


def _spread(figures: Quantiles) -> Spread | None:
    return Spread(figures.p50, figures.p99, figures.max) if figures.count else None


_ASKED: Mapping[Verb, tuple[e.Event, str]] = {
    Verb.PAUSE: (e.PauseRequested(), "pauses after the current step"),
    Verb.RESUME: (e.ResumeRequested(), "goes on"),
    Verb.CHECKPOINT: (e.CheckpointRequested(), "writes a checkpoint after the current step"),
    Verb.LEAVE: (e.LeaveRequested(), "leaves the run for good after the current step"),
    Verb.STOP: (e.StopRequested(), "stops after the current step; start it again to go on"),
}
