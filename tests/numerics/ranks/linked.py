"""A trainer in real processes, for a seat in a cluster: the daemon's own link starts, hears and restarts them."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.arena import Arena
from deca_node.daemon.trainer.borrowed import Lenders
from deca_node.daemon.trainer.lending import Lending, lend
from deca_node.daemon.trainer.link import TrainerLink
from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from deca_node.lab.sim.seats import FrameBook
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import BlockVersion, Delta, FrameId
from deca_node.protocol.options import TrainerOptions
from deca_node.storage.manifest import newest_manifest
from tests.e2e.testbed import until
from tests.numerics.ranks.forked import Forked
from tests.patience import PATIENCE_SECONDS

SLOT_BYTES, SLOTS = 1 << 20, 16


@dataclass(frozen=True)
class Life:
    """A trainer from its start on. At the ``at``-th gradient of this life the rank ``victim`` is killed."""

    options: TrainerOptions
    victim: int = 0
    at: int = 0


class LinkedTrainer:
    """One life after the other. It endures (:class:`deca_node.lab.sim.seats.Endures`)."""

    def __init__(self, lives: Sequence[Life], frames: FrameBook, started: list[Forked], lent: int = 0) -> None:
        """``started`` gets every process that is started, rank 0 of a life first. ``lent`` ranks come from another
        server, whose part this process takes as well."""
        self.deaths: list[str] = []
        """What the link has said of each."""
        self.devices: list[tuple[str, ...]] = []
        """Of each life."""
        self._lives = iter(lives)
        self._started = started
        self._frames = frames
        self._loop = asyncio.new_event_loop()
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        port = free_ports(1)[0]
        lenders = Lenders(LOOPBACK, port, lent, "") if lent else None
        self._link = TrainerLink(self._told.put_nowait, lambda _: None, lenders)
        lending = Lending(LOOPBACK, port, ("cpu",) * lent, "", "", 1, name="far")
        self._server = self._loop.create_task(lend(lending, lambda _: None))
        self._arena = Arena(self._link.memory, SLOT_BYTES, SLOTS)
        self.restart()

    def restart(self) -> None:
        """Begin the next life."""
        self._life, self._gradients, before = next(self._lives), 0, len(self._started)
        self._loop.run_until_complete(self._link.start(self._life.options, "normal"))
        self._ready = self._hear()
        assert isinstance(self._ready, e.TrainerReady), self._ready
        self.devices.append(self._ready.devices)
        self._ranks = self._started[before:]
        self._link.send(messages.ArenaShape(SLOT_BYTES, SLOTS))

    def ready(self) -> e.TrainerReady:
        """What it said when it had loaded the model."""
        return self._ready

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Send a command, with the frames that it names; returns the answer."""
        named = [frame for frame in frames_of(command) if frame in self._frames]
        views = [(self._frames.view(frame), number) for number, frame in enumerate(named)]
        for view, number in views:
            self._arena.slot(number, len(view))[:] = view
        slots = {frame: (number, len(view)) for frame, (view, number) in zip(named, views, strict=True)}
        self._gradients += isinstance(command, c.HalfStep) and command.gradient
        doomed = isinstance(command, c.HalfStep) and self._gradients == self._life.at
        answer = self._die(command, slots) if doomed else self._ask(command, slots)
        for view, number in views:
            view[:] = self._arena.slot(number, len(view))
        return answer

    def give(self) -> e.Fetched | None:
        """The block versions of the newest checkpoint, as a donor reads them from the disk."""
        folder = Path(self._life.options.directory)
        manifest = newest_manifest(folder)
        if manifest is None:
            return None
        deltas = (
            Delta(BlockVersion(name, block.activation), str(folder / block.delta.file))
            for name, block in manifest.blocks.items()
        )
        return e.Fetched(manifest.position.activation, tuple(deltas))

    def close(self) -> None:
        """End its processes."""
        self._loop.run_until_complete(self._link.close())
        self._loop.run_until_complete(asyncio.wait_for(self._server, PATIENCE_SECONDS))
        self._loop.close()

    def _ask(self, command: c.TrainerCommand, slots: messages.Slots) -> e.TrainerEvent:
        self._link.send(command, slots)
        return self._hear()

    def _die(self, command: c.TrainerCommand, slots: messages.Slots) -> e.TrainerEvent:
        """Kill a rank in the middle of a step: the others work at it, and this one has not begun."""
        process = self._ranks[self._life.victim].pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] == "T", "it to stand still")
        self._link.send(command, slots)
        os.kill(process, signal.SIGKILL)
        death = self._hear()
        assert isinstance(death, e.TrainerFailed), death
        self.deaths.append(death.sentence)
        return death

    def _hear(self) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(self._told.get(), PATIENCE_SECONDS))


def frames_of(part: Any) -> Iterator[FrameId]:
    """All frames that a command names."""
    if isinstance(part, FrameId):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from frames_of(each)
    elif is_dataclass(part):
        for field in fields(part):
            yield from frames_of(getattr(part, field.name))
