"""What a running member tells `deca-node doctor`, over real servers on loopback."""

import asyncio
from collections.abc import Collection

import pytest

from deca_node.daemon.diagnosis.reach import Surveyed, reach_of, survey_all
from deca_node.daemon.relay.survey import Surveyor
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.wire.endpoint import Context, Endpoint
from deca_node.daemon.wire_pb import relay_pb2 as pb
from deca_node.lab.rigs.processes import free_ports
from deca_node.protocol.errors import WireError
from tests.patience import PATIENCE_SECONDS

LOOPBACK = "127.0.0.1"


def own_address(listen: int, advertise: int) -> OwnAddress:
    where = Address(LOOPBACK, listen), Address(LOOPBACK, advertise)
    return OwnAddress("east", *where, (), frozenset(), None, 2)


def surveyed(
    own: OwnAddress, linked: Collection[str] = (), *, relays: bool = False, welcome: bool = True, may_dial: bool = True
) -> list[Surveyed]:
    """What east hears from west and from a peer that does not answer."""

    def admit(_context: Context, name: str) -> None:
        assert name == "east"
        if not welcome:
            raise WireError("denied", "no")

    async def ask() -> list[Surveyed]:
        endpoint = Endpoint(Address(LOOPBACK, 0))
        endpoint.add(Surveyor(admit, lambda _: may_dial, lambda: linked, relays=relays).handlers())
        await endpoint.start()
        peers = [("west", str(endpoint.address)), ("gone", f"{LOOPBACK}:1")]
        found = await survey_all(peers, own, Security(NodeSettings(insecure=1)), PATIENCE_SECONDS)
        await endpoint.stop()
        return found

    return asyncio.run(ask())


def test_a_member_says_whether_it_relays_whom_it_reaches_and_whether_it_reaches_the_caller() -> None:
    (port,) = free_ports(1)
    found = surveyed(own_address(port, port), ["north", "east"], relays=True)
    assert found == [Surveyed("west", True, True, frozenset({"north"}))]


def test_an_address_at_which_nobody_answers() -> None:
    port, elsewhere = free_ports(2)
    assert surveyed(own_address(port, elsewhere)) == [Surveyed("west", False, False, frozenset())]


def test_an_address_that_may_not_be_dialled_is_not_tried() -> None:
    (port,) = free_ports(1)
    assert surveyed(own_address(port, port), may_dial=False)[0].reached is None


def test_strangers_get_no_answer() -> None:
    (port,) = free_ports(1)
    assert surveyed(own_address(port, port), welcome=False) == []


@pytest.mark.parametrize("address", ["", "no port", "x" * 400 + ":7001"])
def test_what_is_no_address_is_not_tried(address: str) -> None:
    surveyor = Surveyor(lambda *_: None, lambda _: True, lambda: (), relays=False)
    said = asyncio.run(surveyor.answer(pb.SurveyRequest(name="east", address=address)))
    assert not said.tried and not said.reached


def test_what_follows_for_a_peer_out_of_reach() -> None:
    answers = [
        Surveyed("west", True, False, frozenset({"north"})),
        Surveyed("south", False, None, frozenset({"north", "west"})),
        Surveyed("far", True, True, frozenset()),
    ]
    reach = reach_of("north", answers)
    assert reach.linked == ("south", "west") and reach.relays == ("west",)
    assert reach.reached_by == ("far",) and reach.tried_by == ("far", "west")
