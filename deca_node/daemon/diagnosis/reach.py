"""Asks the members that answer which connections they have, so that pairs are found that will need a relay.

A node can see for itself whom it can dial. Whether the others can dial *it*, only they can say. So this asks every peer
that answers whether it can connect to this node's own address, where something listens meanwhile, and with whom it is
connected.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from deca_node.daemon.relay.survey import SURVEY, TRIAL_SECONDS
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire_pb import relay_pb2 as pb


@dataclass(frozen=True)
class Surveyed:
    """What one member says: whether it relays, whether it could connect to this node (None where it has not tried), and
    the members to which it is connected."""

    name: str
    relays: bool
    reached: bool | None
    linked: frozenset[str]


@dataclass(frozen=True)
class Reach:
    """What follows for one peer that this node cannot dial. ``linked`` holds the members that are connected to it and
    answer this node, ``relays`` those of them that relay. ``reached_by`` holds the members that can dial this node, and
    ``tried_by`` all that have tried."""

    linked: tuple[str, ...]
    relays: tuple[str, ...]
    reached_by: tuple[str, ...]
    tried_by: tuple[str, ...]


def reach_of(peer: str, surveyed: Collection[Surveyed]) -> Reach:
    """What the answers say about a peer that this node cannot dial."""
    linked = [one for one in surveyed if peer in one.linked]
    return Reach(
        tuple(sorted(one.name for one in linked)),
        tuple(sorted(one.name for one in linked if one.relays)),
        tuple(sorted(one.name for one in surveyed if one.reached)),
        tuple(sorted(one.name for one in surveyed if one.reached is not None)),
    )


async def survey_all(
    peers: Sequence[tuple[str, str]], own: OwnAddress, security: Security, seconds_max: float
) -> list[Surveyed]:
    """Ask these peers, given by name and address, side by side. Those that do not answer, as earlier versions do not,
    are left out."""
    async with _listening(own.listen):
        found = await asyncio.gather(*(_survey(name, at, own, security, seconds_max) for name, at in peers))
    return [one for one in found if one]


async def _survey(name: str, address: str, own: OwnAddress, security: Security, seconds_max: float) -> Surveyed | None:
    endpoint = Endpoint(Address("", 0), security.credentials, security.verify)
    request = pb.SurveyRequest(name=own.name, address=str(own.advertise)).SerializeToString()
    said = pb.SurveyReply()
    try:
        async with asyncio.timeout(seconds_max + TRIAL_SECONDS), endpoint.channel(name, address) as channel:
            # Without serializers messages are bytes. The stubs declare serializers as required.
            call: Any = channel.unary_unary
            said.ParseFromString(await call(SURVEY)(request))
    except (grpc.aio.AioRpcError, TimeoutError, DecodeError):
        return None
    return Surveyed(name, said.relays, said.reached if said.tried else None, frozenset(said.linked))


@asynccontextmanager
async def _listening(address: Address) -> AsyncIterator[None]:
    """Take connections at this node's own address meanwhile, and close them. Where the node runs, it does so itself."""

    def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = None
    with contextlib.suppress(OSError):
        server = await asyncio.start_server(take, address.host, address.port)
    try:
        yield
    finally:
        if server:
            server.close()


def sentences(peer: str, reach: Reach) -> Mapping[str, str]:
    """``says`` and ``do`` for a peer that this node cannot dial and with which others are connected. ``do`` is empty
    where nothing needs to be done."""
    through = ", ".join(reach.linked)
    says = f"no connection from here, but {through} is connected with {peer}: it is behind NAT or a firewall"
    if reach.reached_by:
        return {"says": f"{says}; {', '.join(reach.reached_by)} can dial this node, so {peer} can do so too", "do": ""}
    if reach.tried_by:
        says += f"; {', '.join(reach.tried_by)} cannot dial this node either, so this pair needs a relay"
    else:
        says += f"; if {peer} cannot dial this node either, this pair needs a relay"
    if reach.relays:
        return {"says": f"{says}, and {', '.join(reach.relays)} relays", "do": ""}
    return {"says": f"{says}, and none relays", "do": f"set relay = true at {reach.linked[0]}: docs/TUNNELS.md"}
