"""Events: facts that a node is told. One frozen dataclass per kind. ``Node.handle`` takes them and returns commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import Delta, FrameId, FrameSizes
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.agreed.weights import SHARE_ONE

START = Step(0, 0)
"""The first step of a run."""

Scalars = Mapping[str, float]
"""Numbers of an event for metrics: ``loss``, ``grad_norm``, ``h_rms``, ``seconds``, ..."""

# --- from the trainer -------------------------------------------------------------------------------


class Refused(NamedTuple):
    """A peer whose bytes cannot be used, the reason's code (:mod:`deca_node.protocol.refusals`), and a sentence."""

    peer: str
    reason: str
    sentence: str


@dataclass(frozen=True)
class TrainerReady:
    """The model is loaded and the data is packed. Sizes that peers declare are compared with ``sizes`` before memory is
    taken. ``position`` is the next step: the start of the run, or the position of the newest sound checkpoint. At an
    inner step above 0 the block of that step is active and has no edges. ``devices`` has one name per rank of the
    trainer, if it has several, and ``sharded`` says whether each of them holds a part of the model. ``tokens`` are
    those to train on, from which the node's share in the mean follows."""

    model: ModelFacts
    sizes: FrameSizes
    position: Step = START
    scalars: Scalars = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    sharded: bool = False
    tokens: int = 0


@dataclass(frozen=True)
class Activated:
    """Answer to Activate. The keyframe is written, if one was requested."""

    activation: int


@dataclass(frozen=True)
class Connected:
    """Answer to Connect. ``refused`` names the peers whose keyframe cannot be used, each with a reason. Their edges
    are not open."""

    activation: int
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True)
class HalfStepped:
    """Answer to HalfStep. The update is written, if one was requested."""

    step: Step
    update: FrameId | None
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Mixed:
    """Answer to Mix. ``refused`` names the peers whose update of this step cannot be used, each with a reason. No part
    of such an update was applied, and the trainer has dropped that edge."""

    step: Step
    scalars: Scalars = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True)
class Frozen:
    """Answer to Freeze."""

    activation: int


@dataclass(frozen=True)
class Evaluated:
    """Answer to Evaluate: the mean held-out loss in nats per token, and the number of tokens. A classifier's loss is
    per record, and its ``scalars`` hold ``accuracy`` and ``macro_f1``, both between 0 and 1. ``problem`` says why the
    model could not be kept; empty if it was, or was not to be."""

    when: str
    loss: float
    tokens: int
    scalars: Scalars = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Saved:
    """Answer to Save."""

    path: str


@dataclass(frozen=True)
class Checkpointed:
    """Answer to Checkpoint. The checkpoint is on the disk, and the next start will find it."""

    position: Step
    path: str
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointFailed:
    """The other answer to Checkpoint. It could not be written, and the checkpoint before it remains valid."""

    position: Step
    sentence: str


@dataclass(frozen=True)
class Adopted:
    """Answer to Adopt."""

    position: Step


@dataclass(frozen=True)
class TrainerFailed:
    """The trainer refused a command or died; ``exit_code`` is the exit code of the node. A trainer that ``died`` is
    worth a restart; a trainer that refused would refuse again."""

    sentence: str
    exit_code: int
    died: bool = False


_AnswerEvent = Activated | Connected | HalfStepped | Mixed | Frozen | Evaluated | Saved
TrainerEvent = TrainerReady | _AnswerEvent | Checkpointed | CheckpointFailed | Adopted | TrainerFailed

# --- from the network -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PeerUp:
    """A stream to this peer is open and both ends agree on the run. The peer is at ``activation`` (-1: not begun), and
    has this ``share`` in the mean, in thousandths of an ordinary one."""

    peer: str
    activation: int
    share: int = SHARE_ONE


@dataclass(frozen=True)
class PeerDown:
    """The last stream to this peer broke. ``code`` is the code of the refusal that ended it, or empty if nothing was
    refused."""

    peer: str
    sentence: str
    code: str = ""


@dataclass(frozen=True)
class PeerRefused:
    """A peer and this node do not agree on the run. The sentence names the field and both values."""

    peer: str
    sentence: str


@dataclass(frozen=True)
class OpenReceived:
    """A neighbour opened its end of an edge, and its whole keyframe has arrived; None where it sends none, since only
    moments travel. ``steps`` are the inner steps at which it exchanges updates (none: at all exchanges)."""

    peer: str
    activation: int
    degree: int
    keyframe: FrameId | None
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class UpdateReceived:
    """The whole update of a neighbour has arrived."""

    peer: str
    update: FrameId


@dataclass(frozen=True)
class CloseReceived:
    """A neighbour closed its end of an edge. ``applied`` is the last inner step whose flow it applied. ``orderly``:
    the edge had no fault."""

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
    """A peer is at this activation, or about to begin it (-1: the peer has not begun)."""

    peer: str
    activation: int


@dataclass(frozen=True)
class MembersChanged:
    """The members that this node knows, itself included and without those that died or left. Each has the activation
    from which on it counts in the graph; ``heldout`` is what it tells about held-out losses."""

    ready_from: Mapping[str, int]
    heldout: Mapping[str, Heldout] = field(default_factory=dict)


@dataclass(frozen=True)
class Fetched:
    """Answer to Fetch. These files are on the disk and checked. Together with the blocks that this node has they make
    the donors' model as it was before activation ``activation``."""

    activation: int
    deltas: tuple[Delta, ...]


@dataclass(frozen=True)
class FetchFailed:
    """The other answer to Fetch. No donor could give the rest; the files that arrived are kept for the next attempt."""

    sentence: str


# --- from outside -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeadlinePassed:
    """The time that ``next_deadline`` named has come."""


@dataclass(frozen=True)
class StopRequested:
    """The user asked for an orderly stop. The node is away and will return."""


@dataclass(frozen=True)
class LeaveRequested:
    """The user asked this node to leave the run for good."""


@dataclass(frozen=True)
class PauseRequested:
    """The user asked this node to pause training and to stay connected."""


@dataclass(frozen=True)
class ResumeRequested:
    """The user asked a paused node to continue."""


@dataclass(frozen=True)
class CheckpointRequested:
    """The user asked for a checkpoint after the current step."""


_StreamEvent = OpenReceived | UpdateReceived | CloseReceived | ByeReceived
NetworkEvent = PeerUp | PeerDown | PeerRefused | PeerProgress | _StreamEvent
_UserEvent = StopRequested | LeaveRequested | PauseRequested | ResumeRequested | CheckpointRequested
Event = TrainerEvent | NetworkEvent | MembersChanged | Fetched | FetchFailed | DeadlinePassed | _UserEvent
