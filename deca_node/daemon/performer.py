"""Performs the node's commands: frames and offers to peers, work to the trainer, requests to the network.

It decides nothing about the run. It keeps what a command needs to be performed: the size of every frame, and the slot
of shared memory in which a frame lies.
"""

import asyncio
from functools import partial
from pathlib import Path

from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.logs import log, log_failure
from deca_node.daemon.network import Network
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.arena import Arena, FrameStore
from deca_node.daemon.trainer.link import TrainerLink
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.agreed.weights import SHARE_ONE, share_fits
from deca_node.protocol.errors import StorageError, WireError
from deca_node.protocol.node.state import NodeState
from deca_node.protocol.visit.edges import frames_held_max
from deca_node.storage.best import BEST, keep_best
from deca_node.storage.folder import agreed_fields, write_heldout, write_run

NEIGHBOURS_MAX = 64
"""The shared memory has room for the frames of this many neighbours. Pages that stay untouched take no memory."""


class Performer:
    """Drives the network and the trainer of one node."""

    def __init__(
        self,
        state: NodeState,
        run: RunSettings,
        settings: NodeSettings,
        directory: Path,
        network: Network,
        trainer: TrainerLink,
    ) -> None:
        self._state = state
        self._run = run
        self._settings = settings
        self._directory = directory
        self._network = network
        self._trainer = trainer
        self._store: FrameStore | None = None
        self._shape: messages.ArenaShape | None = None
        self._ready: e.TrainerReady | None = None
        self._starting: asyncio.Task[None] | None = None

    def start_trainer(self, after_seconds: float = 0.0) -> None:
        """Begin to start the trainer's process. The trainer's events tell how that ends."""
        self._starting = asyncio.ensure_future(self._start_trainer(after_seconds))
        self._starting.add_done_callback(log_failure)

    def observe(self, event: e.Event) -> None:
        """Take an event before the node does."""
        if isinstance(event, e.TrainerReady):
            self._ready = event
        elif isinstance(event, e.Adopted):
            self._network.fetcher.clear()

    def perform(self, command: c.Command) -> None:
        """Perform one command, which is not about the log or the node's end."""
        transport = self._network.transport
        match command:
            case c.Meet():
                self._meet(command)
            case c.SendOpen():
                self._send_open(command)
            case c.SendUpdate():
                transport.send_frame(command.peer, command.update)
            case c.SendClose():
                transport.forget(command.peer, command.activation, command.applied)
                close = pb.Close(activation=command.activation, applied=command.applied, reason=command.reason)
                transport.send(command.peer, pb.Frame(close=close))
            case c.SendBye():
                transport.send(command.peer, pb.Frame(bye=pb.Bye()))
            case c.Release():
                assert self._store is not None
                self._store.release(command.frame)
            case c.Fetch():
                self._network.fetch(command.at_least, self._delta_bytes())
            case c.AnnounceReady():
                self._network.announce(command.activation)
            case c.AnnounceHeldout():
                self._announce_heldout(command.heldout)
            case c.KeepBest():
                self._keep_best(command)
            case c.Offence():
                self._network.refusals.blame(command.peer, WireError(command.reason, command.sentence))
            case c.RestartTrainer():
                self.start_trainer(command.seconds)
            case _:
                assert isinstance(command, c.TrainerCommand), "the daemon performs the others itself"
                self._trainer.send(command, self._slots(command))

    def close(self) -> None:
        """Stop starting trainers."""
        if self._starting:
            self._starting.cancel()

    def _meet(self, command: c.Meet) -> None:
        """The model is loaded: cut the shared memory into slots for its frames, and greet the peers."""
        assert self._ready is not None
        held_max = frames_held_max(self._run.late_steps)
        arena = Arena(self._trainer.memory, self._ready.sizes.largest, 2 * held_max * (NEIGHBOURS_MAX + 1))
        # A neighbour that reads slowly may hold this many of our own frames. Frames of peers leave room for them.
        self._store = FrameStore(arena, kept_free=held_max + 1)
        self._shape = messages.ArenaShape(arena.slot_bytes, arena.slots)
        self._trainer.send(self._shape)
        self._write_run(command.agreement)
        log.info("run %s, fingerprint %s", self._run.run_name, command.agreement.fingerprint[:16])
        self._network.meet(command.agreement)
        fits = partial(share_fits, self._run)
        rules = FrameRules(self._nbytes, held_max, keyless=self._run.partners == "step", share_fits=fits)
        if self._run.weights != "equal":
            log.info("this node counts %g times as much in the mean as an ordinary node", command.share / SHARE_ONE)
        self._network.transport.meet(command.agreement, self._store, rules, command.share)

    def _write_run(self, agreement: Agreement) -> None:
        """Raises StorageError if no start in this folder has written the agreement: then the tuned model could not be
        told from that of another run."""
        try:
            write_run(self._directory, agreement, self._settings.model)
        except StorageError as problem:
            if agreed_fields(self._directory) != dict(agreement.fields):
                raise
            log.warning("%s", problem)

    def _announce_heldout(self, heldout: Heldout) -> None:
        try:
            write_heldout(self._directory, self._run, heldout)
        except OSError as problem:
            log.warning("cannot write held-out losses to %s: %s", self._directory, problem.strerror)
        self._network.announce_heldout(heldout)

    def _keep_best(self, command: c.KeepBest) -> None:
        try:
            if keep_best(self._directory, command.number, command.loss, command.until):
                best = f"round {command.number} has the lowest held-out loss so far, {command.loss:.4f} over all nodes"
                log.info("%s: this node's model of then is in %s", best, self._directory / BEST)
        except OSError as problem:
            log.error("the best model is not kept in %s: %s", self._directory, problem.strerror)

    def _send_open(self, command: c.SendOpen) -> None:
        opening = pb.Open(
            activation=command.activation,
            degree=command.degree,
            keyframe_bytes=self._nbytes(FrameKind.KEYFRAME, Step(command.activation, 0)) if command.keyframe else 0,
            steps=command.steps,
        )
        self._network.transport.send_open(command.peer, opening, command.keyframe)

    async def _start_trainer(self, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        log.info("starting the trainer")
        await self._trainer.start(trainer_options(self._run, self._settings), self._settings.trainer_priority)
        if self._shape:
            # A trainer that replaces a dead one learns the shape of the shared memory before any command.
            self._trainer.send(self._shape)

    def _slots(self, command: c.TrainerCommand) -> messages.Slots:
        """The slots of all frames in a command. A frame that the trainer is to write gets a free one."""
        match command:
            case c.Activate(keyframe=FrameId() as frame) | c.HalfStep(update=FrameId() as frame):
                assert self._store is not None
                nbytes = self._nbytes(frame.kind, Step(frame.activation, frame.inner))
                assert nbytes is not None
                self._store.reserve(frame, nbytes)
                frames = [frame]
            case c.Connect():
                frames = [frame for frame in (*(n.keyframe for n in command.neighbours), command.ours) if frame]
            case c.Mix():
                frames = [frame for flow in command.flows for frame in (flow.theirs, flow.ours)]
            case _:
                frames = []
        return {frame: self._store.slot(frame) for frame in frames} if self._store else {}

    def _nbytes(self, kind: FrameKind, step: Step) -> int | None:
        """The size of a frame; None if the run has no such frame."""
        assert self._ready is not None
        return self._ready.sizes.nbytes(self._state.schedule, kind, step)

    def _delta_bytes(self) -> dict[str, int]:
        """The size of each block's difference to the common start, by block: that of a keyframe."""
        assert self._ready is not None
        return dict(zip(self._ready.model.block_names, self._ready.sizes.keyframe_bytes, strict=True))
