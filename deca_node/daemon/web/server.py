"""The HTTP server: probes, status and metrics. Everything here is read-only; requests such as stop are for the socket
in the node's folder (:mod:`deca_node.daemon.web.admin_socket`).

::

    /livez       200 as long as the event loop answers; the trainer's state does not matter
    /startupz    200 once the model is loaded, else 503 with the reason
    /readyz      200 while the node takes part in the run, else 503 with the reason
    /metrics     for Prometheus
    /v1/status   everything about the node, as JSON
    /v1/members  all members that the membership knows, as JSON

:mod:`deca_node.daemon.web.dashboard` adds the page at ``/`` and its data. :mod:`deca_node.daemon.web.guard` decides who
may read what on a port, and :mod:`deca_node.daemon.web.connections` which connections stay when there are too many.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client.aiohttp import make_aiohttp_handler

from deca_node.daemon.settings.address import Address
from deca_node.daemon.status.facts import NodeAdmin, to_json
from deca_node.daemon.status.metrics import registry
from deca_node.daemon.web import unix_socket
from deca_node.daemon.web.connections import Connection, Connections
from deca_node.protocol.errors import AddressError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_BYTES_MAX = 4096
PROBES = frozenset({"/livez", "/startupz", "/readyz"})
BACKLOG = 1024
"""Connections that the kernel holds until the event loop takes them. Callers beyond it wait for a second."""
IDLE_SECONDS = 30.0
PATROL_SECONDS = 1.0
SHUTDOWN_SECONDS = 1.0


def application(node: NodeAdmin) -> web.Application:
    """The paths above, to read."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes([web.get(path, handler) for path, handler in _reading(node).items()])
    return app


def json_response(text: str, status: int = 200) -> web.Response:
    """An answer whose text is JSON."""
    return web.Response(text=text + "\n", status=status, content_type="application/json")


def _reading(node: NodeAdmin) -> dict[str, Handler]:
    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def started(_: web.Request) -> web.Response:
        status = node.status()
        return _probe(status.started, f"{status.phase}: {status.awaits}")

    async def ready(_: web.Request) -> web.Response:
        status = node.status()
        return _probe(status.ready, f"{status.phase}: {status.awaits}")

    async def status(_: web.Request) -> web.Response:
        return json_response(to_json(node.status()))

    async def members(_: web.Request) -> web.Response:
        return json_response(to_json(list(node.members())))

    async def run(_: web.Request) -> web.Response:
        return json_response(to_json(list(node.run())))

    return {
        "/livez": live,
        "/startupz": started,
        "/readyz": ready,
        "/metrics": make_aiohttp_handler(registry(node.status)),
        "/v1/status": status,
        "/v1/members": members,
        "/v1/run": run,
    }


def _probe(good: bool, why_not: str) -> web.Response:
    return web.Response(text="ok\n" if good else why_not + "\n", status=200 if good else 503)


class _Strangers(logging.Filter):
    """Turns the traceback for a malformed request into one debug line. The caller has got an answer that says what is
    wrong. Without this, everybody who reaches the port could fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let all other records pass: they are errors of this program."""
        problem = record.exc_info[1] if record.exc_info else None
        if not isinstance(problem, HttpProcessingError):
            return True
        log.debug("a malformed HTTP request: %s", " ".join(str(problem).split())[:200])
        return False


# The header "Server" of every answer, also of one to a malformed request, which no middleware sees. aiohttp's own names
# its version and that of Python.
web_response.SERVER_SOFTWARE = "deca-node"  # type: ignore[attr-defined]

log = logging.getLogger("deca.http")
log.addFilter(_Strangers())


class Server:
    """An application behind a listening TCP or Unix socket."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, logger=log, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=SHUTDOWN_SECONDS
        )
        self._server: asyncio.AbstractServer | None = None
        self.connections: Connections | None = None
        self._patrol: asyncio.Task[None] | None = None
        app.middlewares.insert(0, self._noted)

    async def listen_tcp(self, address: Address) -> Address:
        """Listen at ``address`` (port 0: any free port); returns the address in use. Raises AddressError."""
        await self._begin(shared=True)
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._protocol, address.host, address.port, backlog=BACKLOG)
        except (OSError, UnicodeError) as problem:
            raise AddressError(
                f"cannot answer HTTP at {address}: {getattr(problem, 'strerror', None) or problem}; "
                "stop the program that listens there, or choose another --http"
            ) from None
        self._server = server
        host, port = server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def listen_unix(self, path: Path) -> None:
        """Listen at ``path``, for this user only. Raises OSError."""
        bound = unix_socket.bind(path)
        await self._begin(shared=False)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._protocol, sock=bound, backlog=unix_socket.BACKLOG)

    async def close(self) -> None:
        """End listening, and close every connection."""
        if self._patrol:
            self._patrol.cancel()
        if self._server:
            self._server.close()
        await self._runner.cleanup()
        if self.connections:
            self.connections.close()

    async def _begin(self, *, shared: bool) -> None:
        await self._runner.setup()
        assert self._runner.server is not None
        self.connections = Connections(self._runner.server, asyncio.get_running_loop().time, shared=shared)
        self._patrol = asyncio.ensure_future(self._cut_the_slow())

    @web.middleware
    async def _noted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self.connections.of(request.transport) if self.connections else None
        if connection is None:
            return await handler(request)
        if connection.probes_only and request.path not in PROBES:
            return web.Response(text="busy: too many connections; only probes are answered now\n", status=503)
        connection.begin_answer()
        try:
            return await handler(request)
        finally:
            connection.end_answer()

    async def _cut_the_slow(self) -> None:
        while True:
            await asyncio.sleep(PATROL_SECONDS)
            assert self.connections is not None
            self.connections.cut_the_slow()

    def _protocol(self) -> asyncio.Protocol:
        assert self.connections is not None
        return Connection(self.connections)
