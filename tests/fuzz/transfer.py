"""Blocks and start models from donors: offers, pieces and the journal on the way in, requests on the way out."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from deca_node.daemon.settings.sources import load_settings, run_as_toml
from deca_node.daemon.transfer import partial_file, pieces
from deca_node.daemon.transfer.donor import Donor
from deca_node.daemon.transfer.download import _parsed
from deca_node.daemon.transfer.offers import check_run, check_start, check_versions, choose, choose_start, read_offer
from deca_node.daemon.transfer.partial_file import FORMAT, JOURNAL, PART, PartialFile
from deca_node.daemon.transfer.pieces import PIECE_BYTES, Item
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.agreed.agreement import ModelFacts, agree
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.storage.durable import write_file
from deca_node.storage.manifest import (
    DataPlace,
    Manifest,
    StoredBlock,
    StoredFile,
    delta_name,
    folder_of,
    value_name,
    write_manifest,
)
from tests.fuzz.decoders import Choices, Decoder, Finding, Target, piece
from tests.fuzz.scratch import file, fresh
from tests.fuzz.streams import in_loop

SETTINGS = RunSettings(rounds=2)
AGREEMENT = agree(SETTINGS, ModelFacts("0" * 64, ("layers.0", "layers.1"), (10, 10)))
EXPECTED = {"layers.0": 100, "layers.1": 100}
SUM = hashlib.sha256(b"").digest()
SMALL = 64
"""Bytes of a piece, for the files that come in here: hashing whole ones would take all the time."""


# --- offers ------------------------------------------------------------------------------------------


def _offers() -> list[bytes]:
    said = pb.Description(
        protocol=1,
        run_name="wards",
        fingerprint=AGREEMENT.fingerprint,
        agreement=dict(AGREEMENT.fields),
        settings=run_as_toml(SETTINGS),
        position=7,
        boundary=6,
        versions=[pb.Version(block=f"layers.{i}", activation=4 + i, bytes=100, sha256=SUM) for i in range(2)],
        start=[pb.StartFile(name="config.json", bytes=5, sha256=SUM)],
        shares_start=True,
    )
    return [said.SerializeToString(), pb.Description(fingerprint=AGREEMENT.fingerprint).SerializeToString()]


def _offer(data: bytes, mended: bool) -> None:
    """All that is done with a donor's words: ``mended`` gives them the fingerprint that they ought to have."""
    if mended:
        said = pb.Description()
        try:
            said.ParseFromString(data)
        except Exception:  # noqa: BLE001 - the other decoder of the same bytes looks at that
            return
        said.agreement.clear()
        said.agreement.update(AGREEMENT.fields)
        said.fingerprint = AGREEMENT.fingerprint
        data = said.SerializeToString()
    offer = read_offer("south", data)
    check_run(offer, AGREEMENT)
    check_start(offer, 1 << 30)
    choose_start([offer])
    check_versions(offer, EXPECTED)
    plan = choose([offer, offer], 0, {"layers.0": 3})
    for item in plan.items:
        if "/" in item.file or item.file.startswith("."):
            raise Finding(f"a donor chose the path {item.file!r}")


def _adopted(data: bytes) -> None:
    """The settings in TOML that a newcomer takes over."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    load_settings({}, {}, file("offered.toml", text.encode()), None)


# --- pieces ------------------------------------------------------------------------------------------


def _arrivals(data: bytes) -> None:
    """A file in two pieces, from what a donor sends: is what gets finished what it was said to be?"""
    with _small_pieces():
        _arrive(data)


@contextlib.contextmanager
def _small_pieces() -> Iterator[None]:
    kept = pieces.PIECE_BYTES
    pieces.PIECE_BYTES = partial_file.PIECE_BYTES = SMALL
    try:
        yield
    finally:
        pieces.PIECE_BYTES = partial_file.PIECE_BYTES = kept


def _arrive(data: bytes) -> None:
    item, folder = Item(3, "layers.0", SMALL + 50), fresh("incoming")
    whole = bytes(range(item.nbytes))
    part, choices = PartialFile(folder, item, "run"), Choices(data)
    copy = hashlib.sha256(whole).digest()
    for _ in range(8):
        if not choices or part.whole:
            break
        message = _piece(choices, whole)
        taken = _parsed(message)
        if taken.index < 2:
            part.store(taken.index, taken.data, taken.sha256, copy)
        if not part.missing:
            part.finish()
    if part.whole and hashlib.sha256(part.path.read_bytes()).digest() != copy:
        raise Finding("a finished file is not the one that was asked for")


def _piece(choices: Choices, whole: bytes) -> bytes:
    what = choices.number()
    if what % 3 == 0:
        return choices.piece()
    index = choices.number() % 3
    data = whole[index * SMALL : (index + 1) * SMALL]
    if what % 3 == 1:
        data = choices.piece()
    return pb.Piece(index=index, sha256=hashlib.sha256(data).digest(), data=data).SerializeToString()


def _journal(data: bytes) -> None:
    """A journal as it may lie on the disk after a crash, beside pieces as they may lie there. With two leading bytes
    the head is right, and what follows are claims."""
    item, folder = Item(3, "layers.0", 100), fresh("resumed")
    head = json.dumps({"format": FORMAT, "label": "run", "bytes": 100, "piece_bytes": PIECE_BYTES}) + "\n"
    (folder / f"{item.file}{JOURNAL}").write_bytes(head.encode() + data[1:] if data[:1] == b"+" else data)
    (folder / f"{item.file}{PART}").write_bytes(bytes(100))
    part = PartialFile(folder, item, "run")
    if set(part.held) - {0} or part.held_bytes not in (0, 100):
        raise Finding(f"a journal claims {part.held}")
    part.store(0, b"x" * 100, hashlib.sha256(b"x" * 100).digest(), SUM)


def _journals() -> list[bytes]:
    claim = {"piece": 0, "sha256": hashlib.sha256(bytes(100)).hexdigest(), "copy": SUM.hex()}
    return [b"+" + json.dumps(claim).encode() + b"\n", b"+" + json.dumps(claim | {"sha256": "00"}).encode(), b"{}\n"]


# --- requests ----------------------------------------------------------------------------------------


class _Refused(Exception):
    """A call was ended with a status."""


class _Context:
    """The answering end of a call."""

    def __init__(self) -> None:
        self.written = 0

    async def abort(self, _code: object, sentence: str) -> None:
        """End it in words."""
        if not sentence or len(sentence) > 2000:
            raise Finding(f"a refusal of {len(sentence)} characters")
        raise _Refused(sentence)

    async def write(self, message: bytes) -> None:
        """One piece."""
        self.written += len(message)

    def peer_identities(self) -> None:
        """No certificate."""

    def peer(self) -> str:
        """Some address."""
        return "ipv4:127.0.0.1:1"


def _stocked() -> Donor:
    folder = fresh("node")
    blocks = {}
    for name, activation in (("layers.0", 4), ("layers.1", 5)):
        files = []
        for path in (value_name(name, activation), delta_name(name, activation)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            found = write_file(folder / path, [bytes(100)])
            files.append(StoredFile(path, 100, found.sha256))
        blocks[name] = StoredBlock(activation, *files)
    where = folder_of(folder, Step(6, 0))
    where.mkdir(parents=True, exist_ok=True)
    write_manifest(where, Manifest(AGREEMENT, Step(6, 0), blocks, None, DataPlace(0, 0, 1), {}, 0.0))
    model = fresh("model")
    (model / "config.json").write_text("{}\n")
    return Donor(folder, lambda: 6, lambda: AGREEMENT, run_as_toml(SETTINGS), model)


_DONOR: list[Donor] = []


def _request(data: bytes) -> None:
    """A request for pieces, or to describe what there is."""
    donor: Any = _DONOR[0] if _DONOR else _stocked()
    _DONOR[:] = [donor]
    answer = donor._describe if data[:1] == b"?" else donor._fetch
    context = _Context()

    async def life() -> None:
        async with asyncio.timeout(20):
            await answer(data[1:], context)

    in_loop(life())


def _requests() -> list[bytes]:
    version = pb.Version(block="layers.0", activation=4, bytes=100, sha256=hashlib.sha256(bytes(100)).digest())
    start = pb.StartFile(name="config.json", bytes=3, sha256=hashlib.sha256(b"{}\n").digest())
    asked = [
        pb.FetchRequest(name="b", fingerprint=AGREEMENT.fingerprint, pieces=[0], version=version),
        pb.FetchRequest(name="b", fingerprint=AGREEMENT.fingerprint, pieces=[0], start=start),
    ]
    describe = pb.DescribeRequest(name="b", start=True).SerializeToString()
    return [*(b"!" + request.SerializeToString() for request in asked), b"?" + describe]


TARGET = Target(
    "transfer",
    (
        Decoder("offer", lambda data: _offer(data, mended=False), _offers),
        Decoder("offer of this run", lambda data: _offer(data, mended=True), _offers),
        Decoder("adopted settings", _adopted, lambda: [run_as_toml(SETTINGS).encode()]),
        Decoder("piece", _arrivals, lambda: [b"\2\0\2\1", b"\1\0" + piece(b"x"), b"\0" + piece(b"\x08\x01")]),
        Decoder("journal", _journal, _journals),
        Decoder("request", _request, _requests, refuses=(_Refused,)),
    ),
)
