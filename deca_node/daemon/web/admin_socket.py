"""A socket in the node's folder, for its owner: everything that can be read, and requests such as stop.

It speaks HTTP, so that ``curl --unix-socket DIR/admin.sock http://node/v1/status`` works as well as the command line.
Whoever may connect may stop the node; that is decided by the file's mode and by nothing else.

::

    GET  /v1/status, /v1/members, /metrics, ...   all that can be read elsewhere too (deca_node.daemon.web.server)
    GET  /v1/events?last=N&follow=1               the newest log lines, and those that come
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
        """Begin to answer. A node that cannot (on a filesystem without sockets) says so and goes on without."""
        try:
            await self._server.listen_unix(self._path)
        except OSError as problem:
            why = problem.strerror or problem
            log.warning("no socket at %s (%s): this node cannot be asked for its status", self._path, why)

    async def close(self) -> None:
        """End answering; whoever listens to the log hears its end."""
        self._events.end()
        await self._server.close()
        self._path.unlink(missing_ok=True)


def _asking(node: NodeAdmin, verb: Verb) -> Handler:
    async def ask(_: web.Request) -> web.Response:
        try:
            return json_response(to_json({"sentence": await node.ask(verb)}))
        except DecaError as refusal:
            return json_response(to_json({"sentence": str(refusal)}), status=409)

    return ask


class _Following:
    """Answers with log lines, to so many listeners at a time."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._listeners = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            last = int(request.query.get("last", LAST_DEFAULT))
        except ValueError:
            return json_response(to_json({"sentence": "last is a number of lines"}), status=400)
        if request.query.get("follow") != "1":
            return web.Response(text="".join(line + "\n" for line in self._events.last(last)))
        if self._listeners >= LISTENERS_MAX:
            return json_response(to_json({"sentence": f"{LISTENERS_MAX} listen already"}), status=503)
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
            # The listener has left, which is how every following ends.
            pass
        finally:
            self._listeners -= 1
        return response
