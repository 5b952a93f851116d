"""The bytes that a run sends.

The schedule determines the traffic of a run. Each visit of a block opens every edge with one keyframe and then sends
one update per exchange, and their sizes follow from the settings. So the bytes are exact, down to the framing of every
chunk, as long as no edge is lost.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from deca_node.protocol.agreed.frames import KEYFRAME_CODEC_NAME, STATE_BYTES, frame_framing_bytes
from deca_node.protocol.agreed.run import MATCHINGS
from deca_node.protocol.agreed.schedule import PARAMETERS, Content, Schedule, Step
from deca_node.protocol.agreed.topology import turns
from deca_node.protocol.planning.case import BlockShape, Case


@dataclass(frozen=True)
class PlannedTraffic:
    """Bytes in one direction: the payload of keyframes, the payload of updates, and the framing of their chunks. The
    headers of gRPC, TLS and TCP are not counted, and neither are the few bytes of control messages."""

    keyframe_bytes: int = 0
    update_bytes: int = 0
    framing_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Payload and framing."""
        return self.keyframe_bytes + self.update_bytes + self.framing_bytes

    def __add__(self, more: "PlannedTraffic") -> "PlannedTraffic":
        """The sum of both."""
        return PlannedTraffic(
            *(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(more), strict=True))
        )

    def times(self, count: int) -> "PlannedTraffic":
        """The traffic of ``count`` such edges."""
        return PlannedTraffic(*(count * n for n in dataclasses.astuple(self)))


def planned_bytes(case: Case) -> dict[str, PlannedTraffic]:
    """The traffic that each node sends in the whole run, by its name. A node receives as much as it sends, since
    frames of a block have the same size at all nodes."""
    sent = dict.fromkeys(case.members, PlannedTraffic())
    activations = range(len(case.schedule))
    stretch = 1 if case.settings.topology in MATCHINGS else case.settings.redraw_every or len(activations)
    for first in activations[::stretch]:
        graphs = turns(case.members, case.settings, first, len(case.model.blocks))
        for turn, graph in enumerate(graphs):
            edge = edge_traffic(case, activations[first : first + stretch], turn, len(graphs))
            for name, near in graph.items():
                sent[name] += edge.times(len(near))
    return sent


def edge_traffic(case: Case, activations: Iterable[int], turn: int = 0, turns: int = 1) -> PlannedTraffic:
    """The traffic of the activations with these indices over one edge, one way. With several ``turns`` it is that of an
    edge of graph number ``turn``; with one turn, also that of a node with one partner at a time."""
    schedule = case.schedule
    visits = [dataclasses.astuple(_visit_traffic(case, schedule, index, turn, turns)) for index in activations]
    return PlannedTraffic(*(sum(column) for column in zip(*visits, strict=True)))


def _visit_traffic(case: Case, schedule: Schedule, index: int, turn: int, turns: int) -> PlannedTraffic:
    """The traffic of a keyframe, which goes to neighbours in the first graph, and of an update per exchange of this
    turn, flush mixes included."""
    activation = schedule[index]
    block = case.model.blocks[activation.block]
    keyframe = 0 if turn else block.frame_bytes[KEYFRAME_CODEC_NAME]
    steps = [step for inner in range(activation.steps) if schedule.mixes(step := Step(index, inner))]
    steps = [step for step in steps if schedule.turn(step) % turns == turn]
    updates = [update_bytes(case, block, schedule.content(step)) for step in steps]
    framing = frame_framing_bytes(index, 0, keyframe)
    framing += sum(frame_framing_bytes(index, s.inner, nbytes) for s, nbytes in zip(steps, updates, strict=True))
    return PlannedTraffic(keyframe, sum(updates), framing)


def update_bytes(case: Case, block: BlockShape, content: Content = PARAMETERS) -> int:
    """Bytes of one update with this content."""
    codes = block.frame_bytes[case.settings.codec] if content.parameters else 0
    return codes + STATE_BYTES + signal_bytes(case, block, content)


def signal_bytes(case: Case, block: BlockShape, content: Content) -> int:
    """Bytes of the moment signal in an update with this content."""
    return content.v * block.v_bytes + content.m * block.m_bytes[case.settings.moment_bits]


def largest_content(case: Case) -> Content:
    """The content of an update with all parts that the run's updates may have."""
    return Content(True, case.settings.signal != "none", case.settings.signal == "mv")
