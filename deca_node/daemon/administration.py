"""What the owner of a running node sees of it and asks of it, through the socket in its folder and over HTTP."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from deca_node.daemon.logs import EventLog
from deca_node.daemon.network import Network
from deca_node.daemon.settings.address import Address
from deca_node.daemon.status.book import Sources, StatusBook
from deca_node.daemon.status.facts import MemberRow, Spread, Status, Verb
from deca_node.daemon.status.lives import FIRST, Life
from deca_node.daemon.web.admin_socket import AdminSocket
from deca_node.daemon.web.dashboard import add_dashboard
from deca_node.daemon.web.guard import guard
from deca_node.daemon.web.server import Server, application
from deca_node.daemon.wire.meters import Figures, LagMeter
from deca_node.protocol import events as e
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.node.phases import Phase
from deca_node.protocol.node.state import NodeState
from deca_node.storage.folder import METRICS

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
    ) -> None:
        self._node = node
        self._network = network
        self._tell = tell
        self._lag = LagMeter()
        self._admin: AdminSocket | None = None
        self._http: Server | None = None
        self._watch: asyncio.Task[None] | None = None
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
            self.book.history.recall(directory / METRICS)
            self._http = Server(self._application(events, guard(http.host, http_token)))
            await self._http.listen_tcp(http)
        self._watch = asyncio.ensure_future(self._tell_health())

    async def close(self) -> None:
        """End answering."""
        if self._watch:
            self._watch.cancel()
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

    async def ask(self, verb: Verb) -> str:
        """Pass a request on; returns a sentence about its effect. Raises SettingsError if it has no effect now."""
        phase = self._node.phase
        if verb is Verb.RESUME and phase is not Phase.PAUSED:
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


def _spread(figures: Figures) -> Spread | None:
    return Spread(figures.p50, figures.p99, figures.max) if figures.count else None


_ASKED: Mapping[Verb, tuple[e.Event, str]] = {
    Verb.PAUSE: (e.PauseRequested(), "pauses after the current step"),
    Verb.RESUME: (e.ResumeRequested(), "goes on"),
    Verb.CHECKPOINT: (e.CheckpointRequested(), "writes a checkpoint after the current step"),
    Verb.LEAVE: (e.LeaveRequested(), "leaves the run for good after the current step"),
    Verb.STOP: (e.StopRequested(), "stops after the current step; start it again to go on"),
}
