"""Fetches the blocks that were trained while this node was away, or the start model, from several donors.

The fetcher asks all donors what they have, and leaves out donors of other runs and donors whose sizes do not fit the
run. The files then come in pieces from all donors at once (:mod:`deca_node.daemon.transfer.download`). If a donor dies,
the others take its share. If no donor has a version any more (they go on training, and keep two checkpoints), they are
asked again, and only that block begins anew. The pieces that have come are in ``incoming/`` and survive a crash.
"""

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer.donor import DESCRIBE
from deca_node.daemon.transfer.download import Blame, Download, FetchLimits
from deca_node.daemon.transfer.offers import (
    Offer,
    Plan,
    TransferError,
    check_run,
    check_start,
    check_versions,
    choose,
    choose_start,
    copies_of,
    read_offer,
)
from deca_node.daemon.transfer.partial_file import JOURNAL, PartialFile
from deca_node.daemon.transfer.pieces import Item
from deca_node.daemon.wire.broken import BROKEN, in_a_line
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import BlockVersion, Delta
from deca_node.protocol.errors import DecaError, StorageError
from deca_node.protocol.events import Fetched
from deca_node.protocol.options import Note
from deca_node.storage.durable import PARTIAL, sync_folder

INCOMING = "incoming"

ChannelFor = Callable[[str, Address], grpc.aio.Channel]


@dataclass(frozen=True)
class _Errand:
    """One fetch: ``check`` raises DecaError for an offer that does not serve, ``choose`` makes the plan, and the files
    go into ``folder``."""

    check: Callable[[Offer], None]
    choose: Callable[[Collection[Offer]], Plan]
    start: bool
    folder: Path
    fingerprint: str


class Fetcher:
    """Fetches files from donors. ``channel_for`` opens a channel to a donor by name and address, with the node's
    certificate; ``name`` is this node's name.

    ``traffic`` counts over all fetches (see :class:`Download`); ``blame`` is called for donors that broke the rules.
    """

    def __init__(
        self,
        directory: Path,
        channel_for: ChannelFor,
        note: Note,
        limits: FetchLimits | None = None,
        name: str = "",
        blame: Blame = lambda _donor, _problem: None,
    ) -> None:
        self._incoming = directory / INCOMING
        self._channel_for = channel_for
        self._note = note
        self._limits = limits or FetchLimits()
        self._name = name
        self._blame = blame
        self.traffic: Counter[str] = Counter()

    async def describe(self, donors: Mapping[str, Address]) -> tuple[dict[str, Offer], dict[str, str]]:
        """The offers of donors of any run, and for each other donor why it has none, both by name."""
        async with self._channels(donors) as channels:
            return await self._ask_all(channels, lambda offer: None, start=False)

    async def describe_first(self, donors: Mapping[str, Address]) -> tuple[Offer | None, dict[str, str]]:
        """The first offer that comes, of any run, and why the donors that failed before it have none. Donors that are
        slow or dead delay nothing."""
        problems: dict[str, str] = {}
        asked = [asyncio.ensure_future(self.describe({name: address})) for name, address in donors.items()]
        try:
            for answer in asyncio.as_completed(asked):
                offers, failed = await answer
                if offers:
                    return next(iter(offers.values())), problems
                problems |= failed
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return None, problems

    async def fetch(
        self,
        donors: Mapping[str, Address],
        at_least: int,
        have: Mapping[str, int],
        agreement: Agreement,
        expected: Mapping[str, int],
    ) -> Fetched:
        """Fetch the newest version of every block, unless ``have`` (activation by block) is as new.

        ``at_least`` is the activation that donors must have reached, ``expected`` the bytes of each block's delta
        in this run. Raises TransferError where no donor can give it, StorageError where it cannot be written.
        """

        def check(offer: Offer) -> None:
            check_run(offer, agreement)
            check_versions(offer, expected)

        def pick(offers: Collection[Offer]) -> Plan:
            return choose(offers, at_least, have)

        plan = await self._get(donors, _Errand(check, pick, False, self._incoming, agreement.fingerprint))
        await asyncio.to_thread(_remove_all_but, self._incoming, {item.file for item in plan.items})
        deltas = (Delta(BlockVersion(i.name, i.activation), str(self._incoming / i.file)) for i in plan.items)
        return Fetched(plan.target, tuple(sorted(deltas, key=lambda delta: delta.version)))

    async def fetch_start(
        self, donors: Mapping[str, Address], into: Path, agreement: Agreement, bytes_max: int
    ) -> None:
        """Fetch the start model of a run. The folder ``into`` appears once all of its files are complete.

        ``bytes_max`` is the largest size that is accepted. Raises as ``fetch`` does. The trainer hashes the model
        later, and so finds out whether it is the one of the agreement.
        """
        if await asyncio.to_thread(into.exists):
            raise StorageError(f"{into} exists already; name a new folder for the start model")

        def check(offer: Offer) -> None:
            check_run(offer, agreement)
            check_start(offer, bytes_max)

        aside = into.with_name(into.name + PARTIAL)
        plan = await self._get(donors, _Errand(check, choose_start, True, aside, agreement.fingerprint))
        await asyncio.to_thread(_publish, aside, into, {item.file for item in plan.items})

    def clear(self) -> None:
        """Delete the fetched files, after they were adopted."""
        shutil.rmtree(self._incoming, ignore_errors=True)

    # --- attempts -----------------------------------------------------------------------------------

    async def _get(self, donors: Mapping[str, Address], errand: _Errand) -> Plan:
        """Try until everything is here. Gives up after ``failures_max`` attempts in a row that bring nothing."""
        plan, lacking, vain = None, list[Item](), 0
        parts: dict[Item, PartialFile] = {}
        distrusted: set[tuple[str, Item]] = set()
        async with self._channels(donors) as channels:
            while True:
                before = self.traffic["bytes"]
                offers, problems = await self._ask_all(channels, errand.check, errand.start)
                copies = {name: copies_of(offer, distrusted) for name, offer in offers.items()}
                try:
                    if plan is None or not _can_go_on(lacking, copies):
                        plan = errand.choose(offers.values())
                    lacking = await self._download(plan, copies, channels, errand, parts, distrusted)
                    if not lacking:
                        return plan
                    sentence = f"no donor could give {_listed(lacking)}"
                except TransferError as problem:
                    sentence = str(problem)
                vain = 0 if self.traffic["bytes"] > before else vain + 1
                if vain >= self._limits.failures_max:
                    raise TransferError("; ".join([sentence, *(f"{n}: {why}" for n, why in sorted(problems.items()))]))
                await asyncio.sleep(self._limits.pause(max(vain, 1)))

    async def _download(
        self,
        plan: Plan,
        copies: Mapping[str, Mapping[Item, bytes]],
        channels: Mapping[str, grpc.aio.Channel],
        errand: _Errand,
        parts: dict[Item, PartialFile],
        distrusted: set[tuple[str, Item]],
    ) -> list[Item]:
        wanted = {name: {i: s for i, s in offered.items() if plan.takes(i, s)} for name, offered in copies.items()}
        for item in plan.items:
            if item not in parts:
                label = plan.copies[item].hex() if errand.start else errand.fingerprint
                parts[item] = await asyncio.to_thread(PartialFile, errand.folder, item, label)
        mine = {item: parts[item] for item in plan.items}
        await asyncio.to_thread(_check_room, errand.folder, sum(p.missing_bytes for p in mine.values()))
        about = (self._name, errand.fingerprint)
        download = Download(mine, wanted, channels, *about, self.traffic, self._note, self._limits, self._blame)
        lacking = await download.run()
        distrusted |= download.distrusted
        return lacking

    # --- asking -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _channels(self, donors: Mapping[str, Address]) -> AsyncIterator[Mapping[str, grpc.aio.Channel]]:
        channels = {name: self._channel_for(name, address) for name, address in donors.items()}
        try:
            yield channels
        finally:
            await asyncio.gather(*(channel.close(None) for channel in channels.values()))

    async def _ask_all(
        self, channels: Mapping[str, grpc.aio.Channel], check: Callable[[Offer], None], start: bool
    ) -> tuple[dict[str, Offer], dict[str, str]]:
        """The offers that pass the check, and a sentence for each other donor."""
        answers = await asyncio.gather(*(self._ask(name, channel, check, start) for name, channel in channels.items()))
        offers = {answer.donor: answer for answer in answers if isinstance(answer, Offer)}
        problems = {name: answer for name, answer in zip(channels, answers, strict=True) if isinstance(answer, str)}
        for name, problem in sorted(problems.items()):
            self._note(f"{name} cannot be a donor: {problem}")
        return offers, problems

    async def _ask(
        self, name: str, channel: grpc.aio.Channel, check: Callable[[Offer], None], start: bool
    ) -> Offer | str:
        request = pb.DescribeRequest(name=self._name, start=start).SerializeToString()
        seconds = self._limits.hash if start else self._limits.describe
        ask: Any = channel.unary_unary
        try:
            offer = read_offer(name, await ask(DESCRIBE)(request, timeout=seconds))
            check(offer)
        except (DecaError, *BROKEN) as problem:
            return in_a_line(problem)
        return offer


def _can_go_on(lacking: Collection[Item], copies: Mapping[str, Mapping[Item, bytes]]) -> bool:
    """Whether donors still have everything that an earlier attempt left over. Then its plan still holds, and so do the
    pieces that came for it."""
    return all(any(item in offered for offered in copies.values()) for item in lacking)


def _listed(items: Collection[Item], count_max: int = 4) -> str:
    names = [str(item) for item in items]
    return ", ".join(names[:count_max]) + (f" and {len(names) - count_max} more" if len(names) > count_max else "")


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free if folder.exists() else nbytes
    if nbytes > free:
        raise StorageError(f"{folder} needs {nbytes:,} more bytes, and {free:,} are free; make room")


def _remove_all_but(folder: Path, files: Collection[str]) -> None:
    """Delete the parts of versions that a newer plan does not need, and the files of other runs. A disk that refuses
    keeps them; they only take room."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name.removesuffix(JOURNAL) not in files:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _publish(aside: Path, into: Path, files: Collection[str]) -> None:
    """Rename the finished folder, then delete the journals. Without its journal a file would not count as whole."""
    try:
        aside.mkdir(parents=True, exist_ok=True)
        aside.rename(into)
        sync_folder(into.parent)
        for path in into.iterdir():
            if path.name not in files:
                path.unlink()
    except OSError as problem:
        raise StorageError(f"cannot put the start model into {into}: {problem.strerror}") from None
