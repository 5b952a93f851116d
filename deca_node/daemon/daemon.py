"""The daemon is one loop: ``for command in node.handle(event, now): perform(command)``.

Around it stand the hands that perform: the network, the trainer in its own process, the shared memory between the
two, and the files. None of them decides anything about the run.
"""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

from deca_node.daemon.administration import Administration
from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.logs import EventLog, Whereabouts, log, say
from deca_node.daemon.network import Network
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.status.journal import Journal
from deca_node.daemon.status.steps import StepWatch
from deca_node.daemon.status.tensorboard import TensorBoard
from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.arena import Arena, FrameStore
from deca_node.daemon.trainer.link import TrainerLink
from deca_node.daemon.web.page_file import LastPage
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import PeersError, WireError
from deca_node.protocol.node.node import Node
from deca_node.protocol.node.phases import Phase
from deca_node.protocol.options import TrainerOptions
from deca_node.protocol.visit.edges import frames_held_max
from deca_node.protocol.visit.policy import Policy
from deca_node.storage.folder import write_run

AWAITS_SECONDS = 10.0
"""How often a node that waits says for whom."""

QUIET = frozenset({Phase.PAUSED, Phase.STAYING})
"""Phases in which a node waits for whoever keeps it, who need not be told again and again."""

NEIGHBOURS_MAX = 64
"""For so many neighbours at once there is room in the shared memory; pages that nobody needs are never touched."""

FORCED = 130


@dataclass
class _End:
    exit_code: int
    sentence: str
    for_good: bool = False


class Daemon:
    """One node from its start to its exit code."""

    def __init__(
        self, run: RunSettings, settings: NodeSettings, own: OwnAddress, security: Security, directory: Path
    ) -> None:
        curves = TensorBoard(Path(settings.tensorboard) / own.name) if settings.tensorboard else None
        self._run = run
        self._settings = settings
        self._directory = directory
        policy = Policy(
            gather=settings.wait_seconds,
            open=settings.open_timeout_seconds,
            step=settings.step_timeout_seconds,
            finish=settings.finish_timeout_seconds,
            eval_every=settings.eval_every,
            checkpoint_every=settings.checkpoint_every,
            stay=settings.after_run == "stay",
        )
        saved_before = (directory / "final").exists()
        self._node = Node(own.name, own.expected, run, policy, own.wait_for, saved_before)
        self._events: asyncio.Queue[e.Event] = asyncio.Queue()
        tell = self._events.put_nowait
        self._network = Network(
            run, settings, own, directory, security, tell, lambda: self._node.state.position, self._name_taken
        )
        self._steps = StepWatch(self._node.state, self._network.transport.traffic)
        self._journal = Journal(self._node.state, directory, curves)
        self._trainer = TrainerLink(tell, self._noted)
        self._admin = Administration(self._node.state, self._network, tell)
        self._event_log = EventLog()
        self._last_page = LastPage(
            directory,
            self._admin.status,
            self._admin.members,
            self._admin.book,
            self._event_log,
        )
        self._dismissal: asyncio.Task[None] | None = None
        self._store: FrameStore | None = None
        self._shape: messages.ArenaShape | None = None
        self._ready: e.TrainerReady | None = None
        self._end: _End | None = None
        self._signals = 0

    # --- life ---------------------------------------------------------------------------------------

    async def life(self) -> int:
        """Start, loop, shut down; returns the exit code. Raises AddressError where an address cannot be taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self._network.reload)
        log.addHandler(self._event_log)
        whereabouts = Whereabouts(self._node.state)
        log.addFilter(whereabouts)
        watches = [asyncio.ensure_future(self._say_awaits())]
        try:
            await self._network.start()
            await self._admin.open(
                self._directory, self._event_log, self._settings.http_address, self._settings.http_token
            )
            await self._trainer.start(self._setup(), self._settings.trainer_priority)
            watches += [asyncio.ensure_future(work) for work in self._keep_up()]
            await self._loop()
            self._journal.sample(self._admin.status())
            await self._last_page.write()
        finally:
            for watch in watches:
                watch.cancel()
            await self._admin.close()
            await self._network.close(leaving=self._end is not None and self._end.for_good)
            await self._trainer.close()
            self._journal.close()
            log.removeHandler(self._event_log)
        assert self._end is not None
        say(self._end.sentence, "info" if self._end.exit_code == 0 else "error")
        log.removeFilter(whereabouts)
        return self._end.exit_code

    async def _loop(self) -> None:
        clock = asyncio.get_running_loop().time
        while self._end is None:
            deadline = self._node.next_deadline()
            try:
                async with asyncio.timeout_at(deadline):
                    event = await self._events.get()
            except TimeoutError:
                event = e.DeadlinePassed()
            if isinstance(event, e.TrainerReady):
                self._ready = event
            elif isinstance(event, e.Adopted):
                self._network.fetcher.clear()
            # Before the node moves on: what is written down belongs to where it stands now.
            done = self._steps.observe(event)
            self._journal.observe(event, done)
            self._admin.book.observe(event, done)
            for command in self._node.handle(event, clock()):
                self._admin.book.perform(command)
                self._perform(command)

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals == 1:
            log.warning("stopping after the current step; once more to stop at once")
            self._events.put_nowait(e.StopRequested())
        else:
            self._finish(_End(FORCED, "stopped at once; what was trained since the last checkpoint is lost"))

    def _name_taken(self, sentence: str) -> None:
        self._finish(_End(PeersError.exit_code, sentence))

    def _finish(self, end: _End) -> None:
        """End from outside of the loop."""
        self._end = self._end or end
        self._events.put_nowait(e.DeadlinePassed())

    def _keep_up(self) -> Iterator[Coroutine[None, None, None]]:
        """What is written down now and then."""
        yield self._last_page.write_every()
        if self._settings.metrics_every:
            yield self._journal.sample_every(self._settings.metrics_every, self._admin.status)

    async def _say_awaits(self) -> None:
        said = ""
        while True:
            await asyncio.sleep(AWAITS_SECONDS)
            awaits = self._node.state.awaits()
            if awaits == said and not self._node.state.awaits_trainer and self._node.state.phase not in QUIET:
                problems = "; ".join(
                    f"{peer}: {why}" for peer, why in sorted(self._network.transport.problems().items())
                )
                log.info("waiting for %s%s", awaits, f" ({problems})" if problems else "")
            said = awaits

    # --- hands --------------------------------------------------------------------------------------

    def _perform(self, command: c.Command) -> None:
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
            case c.Offence():
                self._network.refusals.blame(command.peer, WireError(command.reason, command.sentence))
            case c.RestartTrainer():
                asyncio.get_running_loop().call_later(command.seconds, self._restart_trainer)
            case c.DismissTrainer():
                self._dismissal = asyncio.ensure_future(self._come_to_rest())
            case c.Report():
                say(command.sentence, command.level, peer=command.about)
            case c.Finish():
                self._end = self._end or _End(command.exit_code, command.sentence, command.for_good)
            case _:
                self._trainer.send(command, self._places(command))

    def _meet(self, command: c.Meet) -> None:
        """The run is known: cut the shared memory for its frames, and greet the peers."""
        assert self._ready is not None
        held_max = frames_held_max(self._run.late_steps)
        arena = Arena(self._trainer.memory, self._ready.sizes.largest, 2 * held_max * (NEIGHBOURS_MAX + 1))
        # A stalled neighbour may hold up as many of our own frames; what comes in must not take their place.
        self._store = FrameStore(arena, kept_free=held_max + 1)
        self._shape = messages.ArenaShape(arena.slot_bytes, arena.slots)
        self._trainer.send(self._shape)
        write_run(self._directory, command.agreement, self._settings.model)
        log.info("run %s, fingerprint %s", self._run.run_name, command.agreement.fingerprint[:16])
        self._network.meet(command.agreement)
        self._network.transport.meet(command.agreement, self._store, FrameRules(self._nbytes, held_max))

    async def _come_to_rest(self) -> None:
        """The run is complete, and this node stays: without a trainer, and with everything written down."""
        await self._trainer.dismiss()
        await self._last_page.write()

    def _restart_trainer(self) -> None:
        """Another trainer in place of one that died; it is told how the memory is cut before any command."""

        async def restart() -> None:
            await self._trainer.start(self._setup(), self._settings.trainer_priority)
            self._trainer.send(self._shape)

        if self._end is None:
            task = asyncio.ensure_future(restart())
            task.add_done_callback(_raise)

    def _send_open(self, command: c.SendOpen) -> None:
        opening = pb.Open(
            activation=command.activation,
            degree=command.degree,
            keyframe_bytes=self._nbytes(FrameKind.KEYFRAME, Step(command.activation, 0)),
        )
        self._network.transport.send_open(command.peer, opening, command.keyframe)

    def _places(self, command: c.TrainerCommand) -> messages.Slots:
        """Where the frames of a command lie; a slot is reserved for the one that it asks to be written."""
        match command:
            case c.Activate(keyframe=FrameId() as frame) | c.HalfStep(update=FrameId() as frame):
                assert self._store is not None
                nbytes = self._nbytes(frame.kind, Step(frame.activation, frame.inner))
                assert nbytes is not None
                self._store.reserve(frame, nbytes)
                frames = [frame]
            case c.Connect():
                frames = [n.keyframe for n in command.neighbours] + ([command.ours] if command.ours else [])
            case c.Mix():
                frames = [frame for flow in command.flows for frame in (flow.theirs, flow.ours)]
            case _:
                frames = []
        return {frame: self._store.slot(frame) for frame in frames} if self._store else {}

    def _nbytes(self, kind: FrameKind, step: Step) -> int | None:
        """What a frame of this kind and step takes; None where the run has no such frame."""
        assert self._ready is not None
        return self._ready.sizes.nbytes(self._node.state.schedule, kind, step)

    def _delta_bytes(self) -> dict[str, int]:
        """What a block's difference to the common start takes: a keyframe's bytes."""
        assert self._ready is not None
        return dict(zip(self._ready.model.block_names, self._ready.sizes.keyframe_bytes, strict=True))

    def _setup(self) -> TrainerOptions:
        same = ("name", "model", "data", "device", "threads", "micro_batch")
        more = ("gradient_checkpointing", "holdout", "eval_sequences", "bad_records", "norm_limit", "trace")
        private = ("dp_noise", "dp_clip", "dp_delta", "dp_epsilon")
        given = {field: getattr(self._settings, field) for field in same + more + private}
        return TrainerOptions(settings=self._run, directory=str(self._directory), **given)

    def _noted(self, note: messages.Remark) -> None:
        say(note.sentence, note.level)


def _raise(task: "asyncio.Task[None]") -> None:
    with contextlib.suppress(asyncio.CancelledError):
        problem = task.exception()
        if problem is not None:
            log.error("the trainer could not be started again: %s", problem)
