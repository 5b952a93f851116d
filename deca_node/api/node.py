"""One node as an object: the process of ``deca-node start``, the socket in its folder, and what it writes down.

::

    Node(...)      settings are checked; nothing runs yet
    start()        the process begins, in the background
    wait()         callbacks, progress; returns the result when the run is complete
    status()       where the node stands          events()   its log lines
    stop()         it writes a checkpoint and ends; the next start goes on from there
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from deca_node.api.client import NodeClient, read
from deca_node.api.given import Peers, Records, given
from deca_node.api.records import Evaluation, Follower, Record, Step, Visit, read_records
from deca_node.daemon.settings.sources import Loaded
from deca_node.daemon.status.facts import Status, Verb
from deca_node.protocol.errors import DecaError, NoAnswerError
from deca_node.storage.folder import FINAL, METRICS, alone_because

if TYPE_CHECKING:
    from deca_node.api.loading import Tuned
    from deca_node.api.progress import Progress
    from deca_node.api.typed import Settings

Answer = TypeVar("Answer")

OUTPUT = "output.log"
"""What the process printed, in the node's folder."""
STOPPED = (-signal.SIGTERM, 130)
"""Exit codes of a node that was stopped before it had started, or that was asked twice."""
LINES_SHOWN = 20
ANSWER_SECONDS, LOOK_SECONDS = 30.0, 0.1
"""A node that starts has this long until it answers, and is asked so often."""
STAYING = "staying"
"""The phase of a node that has finished its run and stays for the others (``after_run``)."""
LAST_SECONDS = 60.0
"""The time that nodes have to end when the script that started them ends."""


class NodeError(DecaError):
    """A node failed. ``exit_code`` is that of its process; docs/EXIT_CODES.md lists them."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Event:
    """One log line. ``facts`` say where the node stood and whom the line is about, by name."""

    time: float | None
    level: str
    message: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a node has when it ends. ``complete`` is False where the node was stopped before the end of its run.

    ``alone`` is empty, or says why the tuned model is this node's own and not the others'.
    """

    name: str
    directory: Path
    complete: bool
    alone: str = ""

    @property
    def model(self) -> Path:
        """The folder of the tuned model, an ordinary Hugging Face checkpoint. It exists if the run is complete."""
        return self.directory / FINAL

    @property
    def steps(self) -> list[Step]:
        """Every step that the node has done, earlier starts included."""
        return [record for record in read_records(self.directory / METRICS) if isinstance(record, Step)]

    @property
    def evaluations(self) -> list[Evaluation]:
        """Every measurement of the held-out loss, earlier starts included."""
        return [record for record in read_records(self.directory / METRICS) if isinstance(record, Evaluation)]

    def load(self, device: str | None = None) -> "Tuned":
        """See :func:`deca_node.load`."""
        from deca_node.api.loading import load

        return load(self.directory, device=device)


class Node:
    """One party's node: its model, its private data, its peers and its settings.

    ``model`` is a folder or a hub id. ``data`` is a file, a folder, or the records themselves. ``peers`` is a peers
    file, a list with NAME@HOST:PORT of every node, or an empty list for a node without peers. ``run`` and ``config``
    are settings files. With ``join="HOST:PORT"`` and without a model, the node takes the run's settings and the start
    model from the member there, as ``deca-node join`` does. All other keyword arguments are the settings of
    ``deca-node start`` under their own names: ``inner_steps=24`` is ``--inner-steps 24``.

    ``on_step``, ``on_visit`` and ``on_evaluation`` are called in :meth:`wait`, in the caller's thread, with a
    :class:`Step`, a :class:`Visit` or an :class:`Evaluation`. Raises DecaError if a setting is wrong.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        data: Records | None = None,
        peers: Peers = None,
        *,
        run: str | Path | None = None,
        config: str | Path | None = None,
        on_step: Callable[[Step], object] | None = None,
        on_visit: Callable[[Visit], object] | None = None,
        on_evaluation: Callable[[Evaluation], object] | None = None,
        **settings: Unpack["Settings"],
    ) -> None:
        self._given = given(model, data, peers, run, config, settings)
        self._callbacks: dict[type, Callable[[Any], object] | None]
        self._callbacks = {Step: on_step, Visit: on_visit, Evaluation: on_evaluation}
        self._process: subprocess.Popen[bytes] | None = None
        self._follower: Follower | None = None
        self._asked = 0
        self._line: int | None = None
        self._client = NodeClient(self.directory)

    def __repr__(self) -> str:
        return f"<deca_node.Node {self.name} in {self.directory}, {self.state}>"

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def name(self) -> str:
        """The node's name."""
        return self._given.name

    @property
    def directory(self) -> Path:
        """The node's folder."""
        return self._given.directory

    @property
    def settings(self) -> Loaded:
        """Every setting, those of the run and those of the node, and where each value comes from. A node that joins
        knows the run's settings when it has them from a member."""
        return self._given.with_the_run()

    @property
    def command(self) -> list[str]:
        """The command that starts the same node in a terminal."""
        return ["deca-node", *self._given.words]

    @property
    def state(self) -> str:
        """``new``, ``running``, ``ended``, or ``failed``."""
        if self._process is None:
            return "new"
        code = self._process.poll()
        if code is None:
            return "running"
        self._let_go()
        return "ended" if code == 0 or (self._asked and code in STOPPED) else "failed"

    @property
    def pid(self) -> int | None:
        """The number of the process; None before the start."""
        return self._process.pid if self._process else None

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the process in the background; a node that was stopped goes on from its checkpoint.

        The process has a group of its own, so an interrupt of a terminal or of a notebook reaches this program only,
        which then stops its nodes in order. When this program ends, the node stops (:mod:`deca_node.api.child`).
        """
        if self.state == "running":
            raise NodeError(f"{self.name} runs already", DecaError.exit_code)
        self._given.write_files()
        self._follower, self._asked = Follower(self.directory / METRICS), 0
        command = [sys.executable, "-P", "-m", "deca_node.api.child", *self._given.words]
        theirs, ours = os.pipe()
        try:
            with (self.directory / OUTPUT).open("wb") as out:
                self._process = subprocess.Popen(
                    command, stdin=theirs, stdout=out, stderr=subprocess.STDOUT, process_group=0
                )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._line = ours
        _STARTED.add(self)
        return self

    def _let_go(self) -> None:
        """The process has ended: close this end of its standard input."""
        line, self._line = self._line, None
        if line is not None:
            os.close(line)
            _STARTED.discard(self)

    def wait(self, timeout: float | None = None, progress: "Progress | bool | None" = None) -> Result:
        """Wait until the run is complete, or the node was stopped; see :func:`deca_node.wait`."""
        from deca_node.api.waiting import wait

        return wait(self, timeout=timeout, progress=progress)[0]

    def stop(self, timeout: float | None = None) -> None:
        """Let the node finish its step, write a checkpoint and end; wait for that. ``timeout`` is in seconds; a node
        that takes longer is killed, and goes on from an earlier checkpoint."""
        if not self._asked:
            self.ask_to_stop()
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
            self._let_go()

    def ask_to_stop(self) -> None:
        """The same without waiting. A second time, the node ends at once, without a checkpoint."""
        if self.state == "running":
            assert self._process is not None
            self._asked += 1
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._let_go()

    def pause(self) -> str:
        """Stop training after the current step, until :meth:`resume`. Returns the node's sentence."""
        return self._client.ask(Verb.PAUSE)

    def resume(self) -> str:
        """Resume training after a pause. Returns the node's sentence."""
        return self._client.ask(Verb.RESUME)

    def checkpoint(self) -> str:
        """Write a checkpoint after the current step. Returns the node's sentence."""
        return self._client.ask(Verb.CHECKPOINT)

    # --- what it does -------------------------------------------------------------------------------

    def status(self) -> Status:
        """The node now. A node that has just started is given time to answer. Raises NoAnswerError if no node runs."""
        return read(Status, self._when_it_answers(lambda: self._client.get("/v1/status")))

    def events(self, last: int = LINES_SHOWN, *, follow: bool = False) -> Iterator[Event]:
        """The newest log lines, and with ``follow`` every new one until the node ends."""
        path = f"/v1/events?last={last}&follow={int(follow)}"

        def begin() -> tuple[Iterator[str], str | None]:
            lines = self._client.lines(path)
            return lines, next(lines, None)

        lines, line = self._when_it_answers(begin)
        with contextlib.suppress(NoAnswerError):
            while line is not None:
                yield _event(line)
                line = next(lines, None)

    def deliver(self, *, last: bool = False) -> list[Record]:
        """Call the callbacks with what the node has done since the last call; returns these records. ``last`` says that
        no more will come."""
        if self._follower is None:
            return []
        records = list(self._follower.rest() if last else self._follower.new())
        for record in records:
            if callback := self._callbacks[type(record)]:
                callback(record)
        return records

    def has_ended(self) -> bool:
        """Whether the node has ended, or has finished its run and stays for the others. Raises NodeError if it
        failed."""
        if self.state == "running":
            return self._stays()
        if self.state == "failed":
            assert self._process is not None
            code = self._process.returncode
            raise NodeError(f"node {self.name} ended with exit code {code}:\n{self.output()}", code)
        return True

    def result(self) -> Result:
        """What the node has by now."""
        final = self.directory / FINAL
        complete = final.is_dir() and self.state != "new"
        return Result(self.name, self.directory, complete, alone_because(final))

    def output(self, lines: int = LINES_SHOWN) -> str:
        """The end of what the process printed."""
        try:
            text = (self.directory / OUTPUT).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def look(self) -> Status | None:
        """The status without patience: None where no node answers now."""
        try:
            return read(Status, self._client.get("/v1/status"))
        except NoAnswerError:
            return None

    def _stays(self) -> bool:
        if not self._given.loaded.node.after_run.startswith("stay") or not (self.directory / FINAL).is_dir():
            return False
        status = self.look()
        return status is not None and status.phase == STAYING

    def _when_it_answers(self, ask: Callable[[], Answer]) -> Answer:
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return ask()
            except NoAnswerError:
                if self.state != "running" or time.monotonic() > end:
                    raise
                time.sleep(LOOK_SECONDS)


_STARTED: set[Node] = set()
"""Nodes that run, so that none is forgotten while it does."""


@atexit.register
def stop_all() -> None:
    """Stop the nodes that still run when the script ends; the next start goes on from their checkpoints."""
    running = [node for node in _STARTED if node.state == "running"]
    for node in running:
        node.ask_to_stop()
    end = time.monotonic() + LAST_SECONDS
    for node in running:
        node.stop(max(end - time.monotonic(), LOOK_SECONDS))


def _event(line: str) -> Event:
    facts = json.loads(line)
    return Event(facts.pop("time", None), str(facts.pop("level", "")), str(facts.pop("message", "")), facts)
