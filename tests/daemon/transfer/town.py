"""Donors behind real servers on loopback, and a late node that fetches from them, in one process."""

import asyncio
import contextlib
import dataclasses
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer.donor import Donor
from deca_node.daemon.transfer.download import FetchLimits
from deca_node.daemon.transfer.fetcher import Fetcher
from deca_node.daemon.transfer.pieces import PIECE_BYTES
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire.throttle import Throttle
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import WireError
from deca_node.protocol.events import Fetched
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

RUN = Agreement({"run_name": "demo", "seed": "0", "model": "ab" * 32})
SIZES = {
    "embedding": 5 * PIECE_BYTES + 260,
    "layers.0": 3 * PIECE_BYTES,
    "layers.1": 3 * PIECE_BYTES,
    "head": 520,
    "layers.77": 260,
}
VERSIONS = {"embedding": 4, "layers.0": 5, "layers.1": 6}
"""Visited in activations 4 to 6; "head" never was."""
PIECES = 12
# No test waits in vain: a node that is refused asks again at once.
LIMITS = FetchLimits(describe=5.0, piece=5.0, pause_min=0.001, pause_max=0.002, failures_max=2, busy_max=1000, note=0.0)


def content(block: str, activation: int, copy: int = 0) -> bytes:
    return random.Random(f"{block}@{activation}:{copy}").randbytes(SIZES[block])


def store(path: Path, name: str, data: bytes) -> StoredFile:
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)
    return StoredFile(name, len(data), hashlib.sha256(data).hexdigest())


def write_node(
    path: Path,
    position: int = 7,
    versions: Mapping[str, int] = VERSIONS,
    copy: int = 0,
    claims: Mapping[str, int] | None = None,
) -> Path:
    """A node's folder with one checkpoint, as a trainer writes it. ``claims`` gives wrong sizes for the manifest."""
    blocks = {
        block: StoredBlock(
            a, store(path, value_name(block, a), b"x"), store(path, delta_name(block, a), content(block, a, copy))
        )
        for block, a in versions.items()
    }
    for block, nbytes in (claims or {}).items():
        lie = dataclasses.replace(blocks[block].delta, bytes=nbytes)
        blocks[block] = dataclasses.replace(blocks[block], delta=lie)
    manifest = Manifest(RUN, Step(position, 0), blocks, None, DataPlace(0, 0, 1), {}, 0.0)
    folder_of(path, manifest.position).mkdir(parents=True)
    write_manifest(folder_of(path, manifest.position), manifest)
    return path


class Gate(Throttle):
    """Takes the place of an upload limit, and calls ``act`` before a piece goes out."""

    def __init__(self, act: Callable[[int], Awaitable[None]]) -> None:
        super().__init__(0.0)
        self.act = act
        self.passed = 0

    async def take(self, nbytes: int) -> None:
        await self.act(self.passed)
        self.passed += 1


@dataclass
class Town:
    """Donors by name, each behind a server of its own, and a late node with its folder."""

    path: Path
    notes: list[str] = field(default_factory=list)
    blamed: list[tuple[str, str]] = field(default_factory=list)
    donors: dict[str, Donor] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    killed: asyncio.Future[None] | None = None

    @property
    def addresses(self) -> dict[str, Address]:
        return {name: endpoint.address for name, endpoint in self.endpoints.items()}

    async def add(self, name: str, act: Callable[[int], Awaitable[None]] | None = None, **options: object) -> None:
        """Add a donor. Before each piece ``act`` is called with the number of pieces that it has given."""
        folder = self.path / name
        if not folder.exists():
            write_node(folder)
        made = {"agreement": lambda: RUN, "throttles": [Gate(act)] if act else [], **options}
        self.donors[name] = Donor(folder, lambda: 7, settings="rounds = 1\n", **made)  # type: ignore[arg-type]
        self.endpoints[name] = Endpoint(Address("127.0.0.1", 0))
        self.endpoints[name].add(*self.donors[name].handlers())
        await self.endpoints[name].start()

    async def kill(self, name: str) -> None:
        """Stop a donor's server. To be called from within that donor's answer, which never returns."""
        self.killed = asyncio.ensure_future(self.endpoints[name].stop(0.01))
        await asyncio.Event().wait()

    def fetcher(self, limits: FetchLimits = LIMITS, name: str = "late") -> Fetcher:
        def note(sentence: str, level: str = "info") -> None:
            self.notes.append(sentence)

        door = Endpoint(Address("127.0.0.1", 0))

        def blame(donor: str, problem: WireError) -> None:
            self.blamed.append((donor, problem.reason))

        return Fetcher(self.path / "late", door.channel, note, limits, name, blame)

    async def fetch(self, fetcher: Fetcher, at_least: int = 1, have: Mapping[str, int] | None = None) -> Fetched:
        expected = {block: SIZES[block] for block in ("embedding", "layers.0", "layers.1", "head")}
        return await fetcher.fetch(self.addresses, at_least, have or {}, RUN, expected)

    def said(self, *words: str) -> bool:
        return any(all(word in note for word in words) for note in self.notes)


@contextlib.asynccontextmanager
async def town(path: Path) -> AsyncIterator[Town]:
    there = Town(path)
    try:
        yield there
    finally:
        await asyncio.gather(*(endpoint.stop(0.01) for endpoint in there.endpoints.values()))


def read(fetched: Fetched) -> dict[str, bytes]:
    return {delta.version.block: Path(delta.path).read_bytes() for delta in fetched.deltas}


def whole(versions: Mapping[str, int] = VERSIONS) -> dict[str, bytes]:
    return {block: content(block, activation) for block, activation in versions.items()}
