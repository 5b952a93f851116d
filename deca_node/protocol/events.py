"""What happened. One frozen dataclass per kind; ``Node.handle`` takes them and answers with commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deca_node.protocol.frames import FrameId
from deca_node.protocol.run import ModelFacts
from deca_node.protocol.schedule import Step
from deca_node.protocol.sizes import FrameSizes

Scalars = Mapping[str, float]
"""Figures that travel with an event for metrics: ``loss``, ``grad_norm``, ``h_rms``, ``seconds``, ..."""

# --- from the trainer -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainerReady:
    """The model is loaded and the data is packed. Whatever a peer declares is held against ``sizes`` before
    memory is taken."""

    model: ModelFacts
    sizes: FrameSizes
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Activated:
    """Answer to Activate: the keyframe is written, if one was asked for."""

    activation: int


@dataclass(frozen=True)
class Connected:
    """Answer to Connect."""

    activation: int


@dataclass(frozen=True)
class HalfStepped:
    """Answer to HalfStep: the update is written, if one was asked for."""

    step: Step
    update: FrameId | None
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Mixed:
    """Answer to Mix."""

    step: Step
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Frozen:
    """Answer to Freeze."""

    activation: int


@dataclass(frozen=True)
class Evaluated:
    """Answer to Evaluate: mean held-out loss in nats per token, and over how many tokens."""

    when: str
    loss: float
    tokens: int


@dataclass(frozen=True)
class Saved:
    """Answer to Save."""

    path: str


@dataclass(frozen=True)
class TrainerFailed:
    """The trainer refused a command or died; ``exit_code`` is the node's."""

    sentence: str
    exit_code: int


TrainerEvent = TrainerReady | Activated | Connected | HalfStepped | Mixed | Frozen | Evaluated | Saved | TrainerFailed

# --- from the network -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PeerUp:
    """A stream to this peer is open and both ends agree on the run; it stands at ``activation`` (-1: not begun)."""

    peer: str
    activation: int


@dataclass(frozen=True)
class PeerDown:
    """The last stream to this peer broke."""

    peer: str
    sentence: str


@dataclass(frozen=True)
class PeerRefused:
    """A peer and this node do not agree on the run; the sentence names the field and both values."""

    peer: str
    sentence: str


@dataclass(frozen=True)
class OpenReceived:
    """A neighbour opened its end of an edge; its keyframe has arrived whole."""

    peer: str
    activation: int
    degree: int
    keyframe: FrameId


@dataclass(frozen=True)
class UpdateReceived:
    """A neighbour's update has arrived whole."""

    peer: str
    update: FrameId


@dataclass(frozen=True)
class CloseReceived:
    """A neighbour closed its end of an edge after the flow of ``applied``."""

    peer: str
    activation: int
    applied: int
    reason: str


@dataclass(frozen=True)
class ByeReceived:
    """A peer has finished the run."""

    peer: str


# --- from outside -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeadlinePassed:
    """The time that ``Node.next_deadline`` named has come."""


@dataclass(frozen=True)
class StopRequested:
    """The user asked for an orderly stop."""


NetworkEvent = PeerUp | PeerDown | PeerRefused | OpenReceived | UpdateReceived | CloseReceived | ByeReceived
Event = TrainerEvent | NetworkEvent | DeadlinePassed | StopRequested
