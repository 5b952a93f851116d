"""What happened. One frozen dataclass per kind; ``Node.handle`` takes them and answers with commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import Delta, FrameId, FrameSizes
from deca_node.protocol.agreed.schedule import Step

START = Step(0, 0)
"""The first step of a run."""

Scalars = Mapping[str, float]
"""Figures that travel with an event for metrics: ``loss``, ``grad_norm``, ``h_rms``, ``seconds``, ..."""

# --- from the trainer -------------------------------------------------------------------------------


class Refused(NamedTuple):
    """A peer whose bytes cannot be used: the reason's code (:mod:`deca_node.protocol.refusals`), and a sentence."""

    peer: str
    reason: str
    sentence: str


@dataclass(frozen=True)
class TrainerReady:
    """The model is loaded and the data is packed. Whatever a peer declares is held against ``sizes`` before
    memory is taken. ``position`` is the next step to be done: the start, or what the newest sound checkpoint
    says; at an inner step above 0 that step's block is active, without edges."""

    model: ModelFacts
    sizes: FrameSizes
    position: Step = START
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Activated:
    """Answer to Activate: the keyframe is written, if one was asked for."""

    activation: int


@dataclass(frozen=True)
class Connected:
    """Answer to Connect. ``refused`` names peers whose keyframe cannot be used, each with a reason, and whose edges
    are not open therefore."""

    activation: int
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True)
class HalfStepped:
    """Answer to HalfStep: the update is written, if one was asked for."""

    step: Step
    update: FrameId | None
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Mixed:
    """Answer to Mix. ``refused`` names peers whose update of this step cannot be used, each with a reason:
    nothing of it was applied, and the trainer has dropped that edge."""

    step: Step
    scalars: Scalars = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True)
class Frozen:
    """Answer to Freeze."""

    activation: int


@dataclass(frozen=True)
class Evaluated:
    """Answer to Evaluate: mean held-out loss in nats per token, and over how many tokens. A classifier's is per record,
    and its ``scalars`` have the shares ``accuracy`` and ``macro_f1``."""

    when: str
    loss: float
    tokens: int
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """Answer to Save."""

    path: str


@dataclass(frozen=True)
class Checkpointed:
    """Answer to Checkpoint: it is on the disk, and a start will find it."""

    position: Step
    path: str
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointFailed:
    """The other answer to Checkpoint: it could not be written, and the one before it still stands."""

    position: Step
    sentence: str


@dataclass(frozen=True)
class Adopted:
    """Answer to Adopt."""

    position: Step


@dataclass(frozen=True)
class TrainerFailed:
    """The trainer refused a command or died; ``exit_code`` is the node's. One that ``died`` may do better when it is
    started again; one that refused would refuse again."""

    sentence: str
    exit_code: int
    died: bool = False


_AnswerEvent = Activated | Connected | HalfStepped | Mixed | Frozen | Evaluated | Saved
TrainerEvent = TrainerReady | _AnswerEvent | Checkpointed | CheckpointFailed | Adopted | TrainerFailed

# --- from the network -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PeerUp:
    """A stream to this peer is open and both ends agree on the run; it stands at ``activation`` (-1: not begun)."""

    peer: str
    activation: int


@dataclass(frozen=True)
class PeerDown:
    """The last stream to this peer broke. ``code`` is that of the refusal which ended it; empty where nothing was
    refused."""

    peer: str
    sentence: str
    code: str = ""


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
    """A neighbour closed its end of an edge after the flow of ``applied``. ``orderly``: nothing is wrong with the
    edge."""

    peer: str
    activation: int
    applied: int
    reason: str
    orderly: bool = False


@dataclass(frozen=True)
class ByeReceived:
    """A peer has finished the run."""

    peer: str


@dataclass(frozen=True)
class PeerProgress:
    """A peer works on this activation now, or is about to (-1: it has not begun)."""

    peer: str
    activation: int


@dataclass(frozen=True)
class MembersChanged:
    """Who takes part, as far as this node knows: every member that is not known to be dead or to have left, itself
    included, with the activation from which on it counts in the graph."""

    ready_from: Mapping[str, int]


@dataclass(frozen=True)
class Fetched:
    """Answer to Fetch: these files are on the disk, checked, and together with what this node has they are the
    model as the donors had it before activation ``activation``."""

    activation: int
    deltas: tuple[Delta, ...]


@dataclass(frozen=True)
class FetchFailed:
    """The other answer to Fetch: nobody could give what is missing; what came is kept for the next attempt."""

    sentence: str


# --- from outside -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeadlinePassed:
    """The time that the machine's ``next_deadline`` named has come."""


@dataclass(frozen=True)
class StopRequested:
    """The user asked for an orderly stop: this node is away, and will be back."""


@dataclass(frozen=True)
class LeaveRequested:
    """The user asked this node to leave the run for good."""


@dataclass(frozen=True)
class PauseRequested:
    """The user asked this node to stop training for a while and to stay."""


@dataclass(frozen=True)
class ResumeRequested:
    """The user asked a paused node to go on."""


@dataclass(frozen=True)
class CheckpointRequested:
    """The user asked for a checkpoint now, that is after the current step."""


_StreamEvent = OpenReceived | UpdateReceived | CloseReceived | ByeReceived
NetworkEvent = PeerUp | PeerDown | PeerRefused | PeerProgress | _StreamEvent
_UserEvent = StopRequested | LeaveRequested | PauseRequested | ResumeRequested | CheckpointRequested
Event = TrainerEvent | NetworkEvent | MembersChanged | Fetched | FetchFailed | DeadlinePassed | _UserEvent
