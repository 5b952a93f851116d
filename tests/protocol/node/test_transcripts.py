"""Transcripts that a person can read, replayed: facts go into one node, and the same commands must come out.

A transcript opens with the node, the run and the node's policy::

    node a of a b c
    run topology=full inner_steps=2
    policy step=10

Then each line that starts with a time is an event, in the words of :mod:`deca_node.lab.sim.notation`. The lines
indented below it are the commands that follow from it. ``until 10`` and ``until -`` say that the node's deadline has
moved, or is gone, and ``counted``, at the end, what the node has counted. ``begun`` plays the beginning without showing
it: all members are met, every edge of the first activation is open, and the first half step is asked for.
``saved-before`` says that an earlier process of the node wrote the tuned model. Text after ``#`` is for the reader.

After an intended change, ``REWRITE_TRANSCRIPTS=1 pytest tests/protocol/node/test_transcripts.py`` writes down what the
node does now. Then read the difference.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.lab.sim.notation import read_event, ready, write
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import BlockVersion, Delta, FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.agreed.topology import graph
from deca_node.protocol.node.node import Node
from deca_node.protocol.visit.policy import Policy
from tests.defaults import default_policy

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
REWRITE = bool(os.environ.get("REWRITE_TRANSCRIPTS"))


class Replay:
    """One node, built from a transcript's head and then fed the transcript's events."""

    def __init__(self) -> None:
        self.name = ""
        self.members: tuple[str, ...] = ()
        self.settings = RunSettings()
        self.policy = default_policy()
        self.saved_before = False
        self.node: Node | None = None
        self.deadline: float | None = None

    def lines(self, text: str) -> Iterator[str]:
        """The transcript as it is now: the author's lines, and the node's commands below them."""
        for line in text.splitlines():
            if line.startswith(" "):
                continue
            yield line
            words = line.partition("#")[0].split()
            if not words:
                continue
            match words[0]:
                case "node":
                    self.name, self.members = words[1], tuple(words[3:])
                case "run":
                    self.settings = RunSettings(**values(RunSettings(), words[1:]))
                case "policy":
                    self.policy = default_policy(**values(default_policy(), words[1:]))
                case "saved-before":
                    self.saved_before = True
                case "begun":
                    self.begin()
                case time:
                    yield from self.tell(line.partition("#")[0].removeprefix(time), float(time))
        if self.node and self.node.state.counters:
            yield f"    counted {' '.join(f'{name}={n}' for name, n in sorted(self.node.state.counters.items()))}"

    def tell(self, event: str, now: float) -> Iterator[str]:
        """Feed one event; yield the node's commands, indented."""
        self.node = self.node or Node(
            self.name, self.members, self.settings, self.policy, saved_before=self.saved_before
        )
        yield from (f"    {write(command)}" for command in self.node.handle(read_event(event), now))
        if self.node.next_deadline() != self.deadline:
            self.deadline = self.node.next_deadline()
            yield "    until -" if self.deadline is None else f"    until {self.deadline:g}"

    def begin(self) -> None:
        """Play the first activation until its first half step is asked for, at time 0."""
        self.node = Node(self.name, self.members, self.settings, self.policy)
        neighbours = graph(self.members, self.settings, 0)
        opens = [
            e.OpenReceived(peer, 0, len(neighbours[peer]), FrameId(peer, FrameKind.KEYFRAME, 0, 0))
            for peer in sorted(neighbours[self.name])
        ]
        ups = [e.PeerUp(peer, -1) for peer in self.members if peer != self.name]
        for event in (ready(2), *ups, e.Evaluated("start", 1.0, 1), e.Activated(0), *opens, e.Connected(0)):
            self.node.handle(event, 0.0)


def values(defaults: RunSettings | Policy, words: list[str]) -> dict[str, object]:
    """``name=value`` words as keyword arguments, each of its default's type."""
    pairs = (word.split("=", 1) for word in words)
    return {name: type(getattr(defaults, name))(text) for name, text in pairs}


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    now = "\n".join(Replay().lines(text)) + "\n"
    if REWRITE:
        path.write_text(now, encoding="utf-8")
    else:
        assert now.splitlines() == text.splitlines()


def test_the_notation_reads_what_it_writes() -> None:
    update, keyframe = FrameId("b", FrameKind.UPDATE, 3, 7), FrameId("[::1]:7001", FrameKind.KEYFRAME, 3, 0)
    events = [
        e.PeerUp("b", -1),
        e.PeerDown("b", 'it said "no more", and left'),
        e.OpenReceived("[::1]:7001", 3, 2, keyframe),
        e.UpdateReceived("b", update),
        e.CloseReceived("b", 3, -1, "a=b"),
        e.HalfStepped(e.Step(3, 7), None),
        e.Evaluated("round 1", 2.5, 100),
        e.StopRequested(),
        e.TrainerFailed("killed", 11, died=True),
        e.TrainerFailed("out of memory", 11),
        ready(3, e.Step(4, 2)),
        e.Mixed(e.Step(3, 7), refused=(e.Refused("b", "not-finite", "not finite"),)),
        e.MembersChanged({"a": 0, "[::1]:7001": -1}),
        e.Fetched(7, (Delta(BlockVersion("layers.0", 5), "incoming/layers.0@5"),)),
        e.MembersChanged({"a": 0, "b": 4}, {"a": Heldout(((0, 3.25), (1, None)), 12), "b": Heldout(stop_at=12)}),
        e.Fetched(1, ()),
    ]
    assert [read_event(write(event)) for event in events] == events
