"""A socket in the node's folder, for its owner: everything that can be read, and requests such as stop.

It speaks HTTP, so ``curl --unix-socket DIR/admin.sock http://node/v1/status`` works as well as the command line. The
mode of the socket's file alone decides which users may connect; each of them may stop the node.

::

    GET  /v1/status, /v1/members, /metrics, ...   everything that the port answers (deca_node.daemon.web.server)
    GET  /v1/events?last=N&follow=1               the newest log lines, and new ones as they come
    POST /v1/pause, resume, checkpoint, leave, stop
"""

import contextlib
import logging
from pathlib import Path

from aiohttp import web

from deca_node.daemon.logs import EventLog
from deca_node.daemon.status.facts import SOCKET, NodeAdmin, Verb, to_json
from deca_node.daemon.web.server import Handler, Server, application, json_response
from deca_node.protocol.errors import DecaError

LISTENERS_MAX = 16
LAST_DEFAULT = 50

log = logging.getLogger("deca")


class AdminSocket:
    """DIR/admin.sock of a running node."""

    def __init__(self, node: NodeAdmin, events: EventLog, directory: Path) -> None:
        self._path = directory / SOCKET
        self._events = events
        app = application(node)
        app.add_routes([web.post(f"/v1/{verb}", _asking(node, verb)) for verb in Verb])
        app.add_routes([web.get("/v1/events", _Following(events).handle)])
        self._server = Server(app)

    async def open(self) -> None:
        """Begin to answer. If the filesystem has no sockets, the node logs that and goes on without one."""
        try:
            await self._server.listen_unix(self._path)
        except OSError as problem:
            why = problem.strerror or problem
            log.warning(
                "there is no socket at %s (%s); commands such as deca-node status cannot reach this node",
                self._path,
                why,
            )

    async def close(self) -> None:
        """End answering. Listeners get the rest of the log, then its end."""
        self._events.end()
        await self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _asking(node: NodeAdmin, verb: Verb) -> Handler:
    async def ask(_: web.Request) -> web.Response:
        try:
            return json_response(to_json({"sentence": await node.ask(verb)}))
        except DecaError as refusal:
            return json_response(to_json({"sentence": str(refusal)}), status=409)

    return ask


class _Following:
    """Answers with log lines, to at most LISTENERS_MAX listeners at a time."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._listeners = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            last = int(request.query.get("last", LAST_DEFAULT))
        except ValueError:
            return json_response(to_json({"sentence": "last must be a number of lines"}), status=400)
        if request.query.get("follow") != "1":
            return web.Response(text="".join(line + "\n" for line in self._events.last(last)))
        if self._listeners >= LISTENERS_MAX:
            return json_response(
                to_json({"sentence": f"{LISTENERS_MAX} listeners follow the log already; try again later"}), status=503
            )
        return await self._follow(request, last)

    async def _follow(self, request: web.Request, last: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        self._listeners += 1
        try:
            await response.prepare(request)
            async with contextlib.aclosing(self._events.follow(last)) as lines:
                async for line in lines:
                    await response.write(line.encode() + b"\n")
        except ConnectionError:
            # The listener has gone. That is the usual end.
            pass
        finally:
            self._listeners -= 1
        return response
