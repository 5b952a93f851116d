"""One node's life: start, loop, shut down. The loop is ``for command in node.handle(event, now): perform(command)``.

::

    network, trainer, signals, administration --events--> node --commands--> performer --> network, trainer

Only the node decides about the run. Everything around it reports events and performs commands.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

from deca_node.daemon.administration import Administration
from deca_node.daemon.logs import EventLog, Whereabouts, log, log_failure, say
from deca_node.daemon.network import Network
from deca_node.daemon.performer import Performer
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.lent import check_private, read_secret
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.settings.parts import policy_of
from deca_node.daemon.status.journal import Journal
from deca_node.daemon.status.lives import next_life
from deca_node.daemon.status.progress import LOOK_SECONDS, ProgressLog
from deca_node.daemon.status.steps import StepWatch
from deca_node.daemon.terminal import TerminalBar, bar_wanted
from deca_node.daemon.tracking.choice import trackers
from deca_node.daemon.trainer.borrowed import Lenders
from deca_node.daemon.trainer.link import TrainerLink
from deca_node.daemon.trainer.messages import Remark
from deca_node.daemon.web.page_file import LastPage
from deca_node.process import starving
from deca_node.process.signals import SIGNALS
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import PeersError
from deca_node.protocol.node.node import Node
from deca_node.protocol.node.phases import Phase
from deca_node.storage.folder import FINAL, METRICS, alone_because, read_heldout

AWAITS_SECONDS = 10.0
"""A node that waits for the same peers this long logs their names, and again after each further interval."""

QUIET = frozenset({Phase.PAUSED, Phase.STAYING})
"""Phases in which a node waits for its owner. The log does not repeat that."""

FORCED = 130


@dataclass
class _End:
    exit_code: int
    sentence: str
    for_good: bool = False


class Daemon:
    """One node from its start to its exit code. The constructor opens the node's files; nothing runs before
    :meth:`life`. Raises SettingsError or StorageError if a tracker cannot begin."""

    def __init__(
        self, run: RunSettings, settings: NodeSettings, own: OwnAddress, security: Security, directory: Path
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._events: asyncio.Queue[e.Event] = asyncio.Queue()
        tell = self._events.put_nowait
        saved_before = (directory / FINAL).exists()
        alone = alone_because(directory / FINAL)
        heldout, policy = read_heldout(directory, run), policy_of(settings)
        self._node = Node(own.name, own.expected, run, policy, own.wait_for, saved_before, alone, heldout)
        state = self._node.state
        self._network = Network(run, settings, own, directory, security, tell, lambda: state.position, self._name_taken)
        self._trainer = TrainerLink(tell, self._remarked, _lenders(settings))
        self._performer = Performer(state, run, settings, directory, self._network, self._trainer)
        life = next_life(directory / METRICS)
        self._steps = StepWatch(state, self._network.transport.traffic, life=life)
        self._trackers = trackers(settings, own.name, run, directory)
        self._journal = Journal(state, directory, self._trackers, life)
        self._whereabouts = Whereabouts(state)
        self._event_log = EventLog()
        self._starving = starving.StarvationMeter()
        self._admin = Administration(
            state,
            self._network,
            tell,
            lambda: self._starving.sentence,
            life,
            tells_losses=settings.share_losses and not settings.dp_noise,
        )
        self._progress = ProgressLog(self._admin.status)
        self._bar = TerminalBar() if bar_wanted(settings.log_format) else None
        book = self._admin.book
        self._last_page = LastPage(directory, self._admin, book, self._event_log)
        self._background: list[asyncio.Task[None]] = []
        self._signals = 0
        self._end: _End | None = None

    async def life(self) -> int:
        """Live, and return the exit code. Raises AddressError if an address cannot be taken."""
        try:
            await self._start()
            await self._loop()
            await self._write_last()
        finally:
            await self._shut_down()
        assert self._end is not None
        say(self._end.sentence, "info" if self._end.exit_code == 0 else "error")
        log.removeFilter(self._whereabouts)
        return self._end.exit_code

    # --- start --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        SIGNALS.attach(self._stop_signalled, self._network.reload)
        log.addHandler(self._event_log)
        log.addFilter(self._whereabouts)
        if self._bar:
            self._bar.open()
        self._begin(self._log_awaits())
        self._begin(self._tell_progress())
        self._begin(self._watch_trainer())
        await self._network.start()
        await self._admin.open(self._directory, self._event_log, self._settings.http_address, self._settings.http_token)
        self._performer.start_trainer()
        self._begin(self._last_page.write_every())
        if self._settings.metrics_every:
            self._begin(self._journal.sample_every(self._settings.metrics_every, self._admin.status))

    def _begin(self, work: "Coroutine[None, None, None]") -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(log_failure)
        self._background.append(task)

    # --- loop ---------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        clock = asyncio.get_running_loop().time
        while self._end is None:
            event = await self._next_event()
            # Observers take the event first: what they write down belongs to the place where the node stands now.
            done = self._steps.observe(event)
            self._journal.observe(event, done)
            self._admin.book.observe(event, done)
            self._progress.observe(event, done)
            self._performer.observe(event)
            for command in self._node.handle(event, clock()):
                self._admin.book.perform(command)
                self._perform(command)

    async def _next_event(self) -> e.Event:
        try:
            async with asyncio.timeout_at(self._node.next_deadline()):
                return await self._events.get()
        except TimeoutError:
            return e.DeadlinePassed()

    def _perform(self, command: c.Command) -> None:
        match command:
            case c.Report():
                say(command.sentence, command.level, peer=command.about)
            case c.DismissTrainer():
                self._begin(self._come_to_rest())
            case c.Finish():
                self._end = self._end or _End(command.exit_code, command.sentence, command.for_good)
            case _:
                self._performer.perform(command)

    async def _come_to_rest(self) -> None:
        """The run is complete and the node stays: end the trainer, and write the page down."""
        await self._trainer.dismiss()
        await self._last_page.write()

    async def _log_awaits(self) -> None:
        said, state = "", self._node.state
        while True:
            await asyncio.sleep(AWAITS_SECONDS)
            awaits = state.awaits()
            if awaits == said and not state.awaits_trainer and state.phase not in QUIET:
                problems = self._network.problems()
                why = "; ".join(f"{peer}: {problem}" for peer, problem in sorted(problems.items()))
                log.info("waiting for %s%s", awaits, f" ({why})" if why else "")
            said = awaits

    def _remarked(self, remark: Remark) -> None:
        self._admin.book.remark(remark.sentence)
        say(remark.sentence, remark.level)

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._progress.look()
            if self._bar:
                self._bar.draw(self._admin.status())

    async def _watch_trainer(self) -> None:
        """Log when the trainer begins to starve, once each time."""
        said = ""
        while True:
            await asyncio.sleep(starving.LOOK_SECONDS)
            self._starving.look(self._trainer.pid)
            if bool(sentence := self._starving.sentence) != bool(said):
                said = sentence
                say(sentence or "the trainer has cores again", "warning" if sentence else "info")

    # --- reasons to end that do not come from the node ------------------------------------------------

    def _stop_signalled(self) -> None:
        self._signals += 1
        if self._signals == 1:
            log.warning("stopping after the current step; once more to stop at once")
            self._events.put_nowait(e.StopRequested())
        else:
            self._finish(_End(FORCED, "stopped at once; what was trained since the last checkpoint is lost"))

    def _name_taken(self, sentence: str) -> None:
        self._finish(_End(PeersError.exit_code, sentence))

    def _finish(self, end: _End) -> None:
        self._end = self._end or end
        # The loop may be waiting for an event.
        self._events.put_nowait(e.DeadlinePassed())

    # --- shutdown -----------------------------------------------------------------------------------

    async def _write_last(self) -> None:
        self._journal.sample(self._admin.status())
        await self._last_page.write()

    async def _shut_down(self) -> None:
        """Answer nobody any more, then say goodbye to the peers, then end the trainer, then wait for the trackers."""
        for task in self._background:
            task.cancel()
        self._performer.close()
        self._journal.close()
        for part in (self._admin.close, self._close_network, self._trainer.close, self._finish_trackers):
            try:
                await part()
            except Exception as problem:  # noqa: BLE001  (a part that fails must not keep the others from ending)
                log.error("the shutdown went on after %s: %s", type(problem).__name__, problem)
        if self._bar:
            self._bar.close()
        log.removeHandler(self._event_log)
        SIGNALS.detach()

    async def _finish_trackers(self) -> None:
        await asyncio.to_thread(self._trackers.finish)

    async def _close_network(self) -> None:
        await self._network.close(leaving=self._end is not None and self._end.for_good)


def _lenders(settings: NodeSettings) -> Lenders | None:
    """The other servers that lend ranks, if the settings name any. Raises SettingsError or AddressError."""
    if (address := settings.ranks_address) is None:
        return None
    check_private(address.host)
    secret = read_secret(settings.ranks_secret, address.host)
    return Lenders(address.host, address.port, settings.ranks_elsewhere, secret)
