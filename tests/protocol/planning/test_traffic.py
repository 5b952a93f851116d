"""The planned bytes equal those that nodes send: frames of the state machine in the framing of the wire."""

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.wire import framing as wire
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import CHUNK_BYTES, FrameId, FrameKind, FrameSizes, frame_framing_bytes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.agreed.topology import graph
from deca_node.protocol.node.node import Node
from deca_node.protocol.planning.duration import (
    run_seconds,
)
from deca_node.protocol.planning.memory import block_memory
from deca_node.protocol.planning.traffic import PlannedTraffic, edge_traffic, planned_bytes
from tests.defaults import default_policy
from tests.protocol.planning.cases import MODEL, NAMES, case


def wire_bytes(frame: FrameId, nbytes: int) -> int:
    data = memoryview(bytes(nbytes))
    offsets = range(0, nbytes, CHUNK_BYTES)
    chunks = (wire.encode_chunk(frame, at, nbytes, data[at : at + CHUNK_BYTES]) for at in offsets)
    return sum(len(chunk) for chunk in chunks)


# Around the sizes at which a varint grows by a byte, and around whole chunks.
SIZES = st.one_of(
    st.integers(1, 40_000),
    st.sampled_from([k * CHUNK_BYTES + d for k in (1, 2, 3) for d in (-40, -1, 0, 1, 127, 128)]),
)
POSITIONS = st.one_of(st.integers(0, 300), st.integers(16_000, 17_000))


@given(kind=st.sampled_from(FrameKind), activation=POSITIONS, inner=POSITIONS, nbytes=SIZES)
def test_framing_is_that_of_the_wire(kind: FrameKind, activation: int, inner: int, nbytes: int) -> None:
    framing = frame_framing_bytes(activation, inner, nbytes)
    assert nbytes + framing == wire_bytes(FrameId("a", kind, activation, inner), nbytes)


@dataclasses.dataclass
class Town:
    """Nodes whose messages arrive and whose trainers finish without delay. ``sent`` lists their frames."""

    nodes: dict[str, Node]
    sent: list[tuple[str, FrameId]] = dataclasses.field(default_factory=list)

    def live(self) -> None:
        facts = ModelFacts("hash", tuple(b.name for b in MODEL.blocks), tuple(b.elements for b in MODEL.blocks))
        ready = e.TrainerReady(facts, FrameSizes((0,), (0,), (0,), (0,)))
        todo: deque[tuple[str, e.Event]] = deque((name, ready) for name in self.nodes)
        while todo:
            name, event = todo.popleft()
            for command in self.nodes[name].handle(event, 0.0):
                todo.extend(self.consequences(name, command))

    def consequences(self, name: str, command: c.Command) -> Iterator[tuple[str, e.Event]]:
        match command:
            case c.Meet():
                yield from ((name, e.PeerUp(peer, -1)) for peer in self.nodes if peer != name)
            case c.Activate():
                yield name, e.Activated(command.activation.index)
            case c.Connect():
                yield name, e.Connected(command.activation)
            case c.HalfStep():
                yield name, e.HalfStepped(command.step, command.update)
            case c.Mix():
                yield name, e.Mixed(command.step)
            case c.Freeze():
                yield name, e.Frozen(command.activation)
            case c.Checkpoint():
                yield name, e.Checkpointed(command.position, "here")
            case c.Evaluate():
                yield name, e.Evaluated(command.when, 0.0, 1)
            case c.Save():
                yield name, e.Saved(command.name)
            case c.SendOpen():
                if command.keyframe:
                    self.sent.append((name, command.keyframe))
                offer = (name, command.activation, command.degree, command.keyframe, command.steps)
                yield command.peer, e.OpenReceived(*offer)
            case c.SendUpdate():
                self.sent.append((name, command.update))
                yield command.peer, e.UpdateReceived(name, command.update)
            case c.SendBye():
                yield command.peer, e.ByeReceived(name)
            case _:
                assert not isinstance(command, c.SendClose), command


def frame_sizes(settings: RunSettings) -> FrameSizes:
    """The sizes that a trainer reports: codes, 20 bytes of state, and a signal."""
    return FrameSizes(
        tuple(b.frame_bytes["int8"] for b in MODEL.blocks),
        tuple(b.frame_bytes[settings.codec] + 20 for b in MODEL.blocks),
        tuple(
            (settings.signal != "none") * b.v_bytes + (settings.signal == "mv") * b.m_bytes[settings.moment_bits]
            for b in MODEL.blocks
        ),
        tuple(b.v_bytes for b in MODEL.blocks),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"topology": "erdos-renyi"},
        {"mix_every": 2, "codec": "int4"},
        {"mix_every": 9, "codec": "fp32", "flush_mixes": 0},
        {"exchange": "overlap", "block_order": "shuffled", "final_flush_mixes": 0},
        {"signal": "v", "signal_every": 3},
        {"signal": "mv", "signal_every": 2, "mix_every": 2, "inner_steps": 9, "codec": "int4"},
        *(
            {
                "signal": "mv",
                "topology": topology,
                "partners": "step",
                "moments_every": every,
                "moment_bits": 1,
                "mix_every": 4,
            }
            for topology in ("pairs", "one-peer-exponential")
            for every in (1, 2)
        ),
    ],
)
def test_planned_bytes_are_what_nodes_send(settings: dict[str, Any]) -> None:
    """Frame by frame, as the state machine requests them and the wire writes them."""
    planned = case(**settings)
    town = Town({name: Node(name, NAMES, planned.settings, default_policy()) for name in NAMES})
    town.live()
    frames = frame_sizes(planned.settings)
    payload: Counter[tuple[str, FrameKind]] = Counter()
    total: Counter[str] = Counter()
    for name, frame in town.sent:
        nbytes = frames.nbytes(planned.schedule, frame.kind, Step(frame.activation, frame.inner))
        assert nbytes is not None
        payload[name, frame.kind] += nbytes
        total[name] += wire_bytes(frame, nbytes)
    for name, sent in planned_bytes(planned).items():
        assert sent.keyframe_bytes == payload[name, FrameKind.KEYFRAME]
        assert sent.update_bytes == payload[name, FrameKind.UPDATE]
        assert sent.total_bytes == total[name] > 0


def test_a_node_alone_sends_nothing() -> None:
    alone = case(nodes=1)
    assert planned_bytes(alone) == {"a": PlannedTraffic()}
    assert run_seconds(alone).transfer == 0.0
    assert block_memory(alone, MODEL.blocks[0]).frames_bytes == 0


def test_visits_add_up_to_the_run() -> None:
    planned = case()
    visits = [edge_traffic(planned, [index]).total_bytes for index in range(len(planned.schedule))]
    assert sum(visits) == edge_traffic(planned, range(len(planned.schedule))).total_bytes


@pytest.mark.parametrize("every", [1, 3])
def test_bytes_follow_a_graph_that_is_drawn_again(every: int) -> None:
    planned = case(nodes=5, topology="erdos-renyi", redraw_every=every)
    sent = planned_bytes(planned)
    for name in planned.members:
        degrees = [
            len(graph(planned.members, planned.settings, index // every * every)[name])
            for index in range(len(planned.schedule))
        ]
        each = [edge_traffic(planned, [index]).times(degree) for index, degree in enumerate(degrees)]
        assert sent[name] == sum(each, PlannedTraffic())
    assert len({traffic.total_bytes for traffic in sent.values()}) > 1
