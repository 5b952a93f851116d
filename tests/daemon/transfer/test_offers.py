"""Offers: malformed, contradictory and strange ones are refused before anything is fetched."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.transfer.offers import Offer, check_start, read_offer
from deca_node.daemon.transfer.pieces import START, Item
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.errors import WireError
from tests.daemon.transfer.town import RUN


@given(st.binary(max_size=300))
def test_any_bytes_are_an_offer_or_refused(message: bytes) -> None:
    with contextlib.suppress(WireError):
        assert read_offer("north", message).donor == "north"


@pytest.mark.parametrize(
    "lie",
    [
        {"fingerprint": "00"},
        {"versions": [pb.Version(block="head", activation=1, bytes=520, sha256=b"short")]},
        {"start": [pb.StartFile(name="config.json", bytes=2, sha256=b"")]},
    ],
)
def test_offers_that_contradict_themselves_are_refused(lie: dict[str, Any]) -> None:
    honest = {"fingerprint": RUN.fingerprint, "agreement": dict(RUN.fields)}
    assert read_offer("north", pb.Description(**honest).SerializeToString()).agreement == RUN
    with pytest.raises(WireError):
        read_offer("north", pb.Description(**(honest | lie)).SerializeToString())


@pytest.mark.parametrize("name", ["../config.json", "model.safetensors/..", ".ssh", "evil.py", "pytorch_model.bin", ""])
def test_a_start_model_has_no_strange_files(name: str) -> None:
    offer = Offer("north", RUN, "", 0, 0, {}, {Item(START, name, 2): b"s" * 32})
    with pytest.raises(WireError, match="as part of a model"):
        check_start(offer, 10**9)
