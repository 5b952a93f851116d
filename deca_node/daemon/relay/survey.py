"""What a running member tells `deca-node doctor` of connections: whether it relays, to whom it is connected, and
whether it can connect to the caller. From the answers of the members that it reaches, a node that is not started yet
learns which pairs will need a relay.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from deca_node.daemon.relay import messages
from deca_node.daemon.settings.address import parse_address
from deca_node.daemon.wire.endpoint import Context, Handler
from deca_node.daemon.wire_pb import relay_pb2 as pb
from deca_node.protocol.errors import WireError

SURVEY = f"/{messages.SERVICE}/Survey"
TRIAL_SECONDS = 3.0
TRIALS_MAX = 4
"""Trials at one time. A caller beyond it is told that none was made."""
LINKED_MAX = 256
ADDRESS_LENGTH_MAX = 300


class Surveyor:
    """Answers surveys. ``admit(context, name)`` raises WireError where the caller may not use its name or is not
    welcome; ``may_dial(address)`` says whether this node may connect to HOST:PORT; ``linked()`` gives the members to
    which it is connected."""

    def __init__(
        self,
        admit: Callable[[Context, str], None],
        may_dial: Callable[[str], bool],
        linked: Callable[[], Collection[str]],
        *,
        relays: bool,
    ) -> None:
        self._admit = admit
        self._may_dial = may_dial
        self._linked = linked
        self._relays = relays
        self._trials = 0

    def handlers(self) -> Handler:
        """The handler for :meth:`Endpoint.add`."""
        # Without serializers messages are bytes. The stubs require serializers.
        unary = cast(Any, grpc.unary_unary_rpc_method_handler)
        return grpc.method_handlers_generic_handler(messages.SERVICE, {"Survey": unary(self._survey)})

    async def _survey(self, message: bytes, context: Context) -> bytes:
        request = pb.SurveyRequest()
        try:
            request.ParseFromString(message)
            self._admit(context, request.name)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "malformed: not a SurveyRequest")
        except WireError as problem:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{problem.reason}: {problem}")
        return (await self.answer(request)).SerializeToString()

    async def answer(self, request: pb.SurveyRequest) -> pb.SurveyReply:
        """The reply to an admitted caller."""
        reached = await self._try(request.address)
        linked = sorted(name for name in self._linked() if name != request.name)[:LINKED_MAX]
        return pb.SurveyReply(relays=self._relays, tried=reached is not None, reached=bool(reached), linked=linked)

    async def _try(self, address: str) -> bool | None:
        """Whether a program takes a connection at an address; None where that is not tried."""
        if not address or len(address) > ADDRESS_LENGTH_MAX or self._trials >= TRIALS_MAX:
            return None
        try:
            where = parse_address(address)
        except ValueError:
            return None
        if not self._may_dial(address):
            return None
        self._trials += 1
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                _, writer = await asyncio.open_connection(where.host, where.port)
        except (OSError, TimeoutError):
            return False
        finally:
            self._trials -= 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True
