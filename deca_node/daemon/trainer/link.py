"""The daemon's end of the trainer: start its processes, send commands, receive events, notice a death.

::

    rank 0 <-- commands, events --> link        rank 0 asks for the others, if it finds several devices
    rank 1 ... -- failures --> link             of failures within a moment, the one nearest the cause is told

Ranks may run on other servers of the same party; :mod:`deca_node.daemon.trainer.borrowed` has those.
"""

import asyncio
import dataclasses
import os
import shutil
from collections.abc import Callable, Coroutine
from typing import Any

from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.arena import shared_file
from deca_node.daemon.trainer.borrowed import BorrowedRank, Lenders
from deca_node.daemon.trainer.rank import Cause, Failure, Rank, RankProcess
from deca_node.protocol import events as e
from deca_node.protocol.errors import DecaError, TrainerError
from deca_node.protocol.options import TrainerOptions

START_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses between attempts to start the process. There is one attempt more than there are pauses."""
CAUSE_SECONDS = 2.0
"""One rank's death ends the others. So long the link waits for what they say of it."""


class TrainerLink:
    """A trainer in processes of its own. ``tell`` takes its events (TrainerEvent; after a Trial also Tried), ``note``
    takes its remarks while it loads. ``lenders`` are the other servers, if there are any."""

    def __init__(
        self,
        tell: Callable[[Any], None],
        note: Callable[[messages.Remark], None],
        lenders: Lenders | None = None,
    ) -> None:
        self.memory = shared_file()
        self._tell = tell
        self._note = note
        self._lenders = lenders
        self._borrowed: list[BorrowedRank] = []
        self._ranks: list[Rank] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._failures: asyncio.Queue[Failure] = asyncio.Queue()
        self._setup: TrainerOptions | messages.Trial | None = None
        self._priority = ""
        self._folder = ""

    @property
    def pid(self) -> int | None:
        """The process of rank 0 that runs now, if any."""
        return self._ranks[0].pid if self._ranks else None

    async def start(self, setup: TrainerOptions | messages.Trial, priority: str) -> None:
        """Start the process and send it ``setup``. Processes that were started before are ended first.

        The system may refuse a process for a moment, so this tries again after longer and longer pauses. If every
        attempt fails, that is reported as TrainerFailed.
        """
        await self._end()
        if self._lenders and isinstance(setup, TrainerOptions):
            try:
                self._borrowed = await self._lenders.borrow(self._note)
            except DecaError as problem:
                self._tell(e.TrainerFailed(str(problem), problem.exit_code))
                return
            names = tuple(rank.device for rank in self._borrowed)
            setup = dataclasses.replace(setup, elsewhere=names, meet=self._lenders.host)
        self._setup, self._priority = setup, priority
        for pause in (*START_PAUSES_SECONDS, None):
            try:
                await self._start_rank(setup, self.memory)
            except OSError as problem:
                sentence = f"the trainer's process cannot be started: {problem.strerror or problem}"
            except Exception as problem:
                # The node must not wait for a trainer that will never come.
                self._tell(
                    e.TrainerFailed(f"the trainer's process cannot be started: {problem}", TrainerError.exit_code)
                )
                raise
            else:
                break
            if pause is None:
                advice = "raise the limits of processes, open files or memory"
                self._tell(e.TrainerFailed(f"{sentence}; {advice}", TrainerError.exit_code))
                return
            self._note(messages.Remark(f"{sentence}; trying again in {pause:g} s", "warning"))
            await asyncio.sleep(pause)
        self._begin(self._tell_failure())

    def send(self, body: object, slots: messages.Slots | None = None) -> None:
        """Send one command, with the slots of the frames that it names. A dead trainer gets nothing; its death is
        reported as an event."""
        if self._ranks:
            self._ranks[0].send(body, slots)

    async def dismiss(self) -> None:
        """End the processes and keep the shared memory."""
        await self._end()

    async def close(self) -> None:
        """End the processes and free the shared memory."""
        await self._end()
        if self._lenders:
            await self._lenders.close()
        os.close(self.memory)

    async def _start_rank(self, setup: object, *shared: int, name: str = "") -> None:
        await self._begin_rank(RankProcess.start(self._priority, *shared, name=name), setup)

    async def _begin_rank(self, rank: Rank, setup: object) -> None:
        self._ranks.append(rank)
        reader = await rank.connect(setup)
        self._begin(self._listen(rank, reader))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _listen(self, rank: Rank, reader: asyncio.StreamReader) -> None:
        """Pass on a rank's messages until it fails or dies."""
        async for body in rank.messages(reader):
            match body:
                case messages.Remark():
                    self._note(body)
                case messages.RanksWanted():
                    await self._start_others(body)
                case Failure():
                    self._failures.put_nowait(body)
                case _:
                    self._tell(body)

    async def _start_others(self, wanted: messages.RanksWanted) -> None:
        """Start the ranks beside the first, one for each further device."""
        setup = self._setup
        assert setup is not None
        options, trial = (setup.options, True) if isinstance(setup, messages.Trial) else (setup, False)
        names = [f"rank {number} ({device})" for number, device in enumerate(wanted.devices)]
        self._ranks[0].name = names[0]
        self._folder = "" if wanted.place.startswith("tcp:") else wanted.place
        here = len(names) - len(self._borrowed)
        try:
            for number, name in enumerate(names[1:], start=1):
                follower = messages.FollowerSetup(options, number, wanted, trial)
                if number < here:
                    await self._start_rank(follower, name=name)
                else:
                    borrowed = self._borrowed[number - here]
                    borrowed.name = name
                    await self._begin_rank(borrowed, follower)
        except OSError as problem:
            sentence = f"the process of a rank cannot be started: {problem.strerror or problem}"
            event = e.TrainerFailed(sentence, TrainerError.exit_code, died=True)
            self._failures.put_nowait(Failure(Cause.KILLED, event))

    async def _tell_failure(self) -> None:
        """Wait for the first failure of a rank, and tell of the one that caused the others. Then no rank is left."""
        failures = [await self._failures.get()]
        try:
            async with asyncio.timeout(CAUSE_SECONDS):
                while len(failures) < len(self._ranks):
                    failures.append(await self._failures.get())
        except TimeoutError:
            pass
        if len(self._ranks) > 1:
            for rank in self._ranks:
                rank.kill()
        self._tell(min(failures, key=lambda failure: failure.cause).event)

    async def _end(self) -> None:
        """End all ranks, and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Rank 0 first: it lets the others end.
        for rank in (*self._ranks, *self._borrowed):
            await rank.end()
        self._tasks, self._ranks, self._borrowed, self._failures = [], [], [], asyncio.Queue()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
