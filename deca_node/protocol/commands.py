"""Commands: what a node asks for. One frozen dataclass per kind. The caller of ``Node.handle`` performs them in order.

Commands of the first group go to the trainer, which answers each with exactly one event. The second group goes to the
network, the third to the daemon itself, and the last to its log.
"""

from dataclasses import dataclass

from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import Delta, FrameId
from deca_node.protocol.agreed.schedule import Activation, Step
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.agreed.weights import SHARE_ONE

# --- to the trainer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activate:
    """Thaw a block, set its moments to zero, and write its keyframe into ``keyframe`` (None: no neighbours)."""

    activation: Activation
    keyframe: FrameId | None


@dataclass(frozen=True)
class Neighbour:
    """An open edge: the peer, its mixing weight w_ij, and the keyframe it opened with; None where only moments
    travel."""

    peer: str
    weight: float
    keyframe: FrameId | None


@dataclass(frozen=True)
class Connect:
    """Take in the neighbours' keyframes: e_ij = x^_j - x^_i for each. ``ours`` is the keyframe that all of them got."""

    activation: int
    neighbours: tuple[Neighbour, ...]
    ours: FrameId | None


@dataclass(frozen=True)
class HalfStep:
    """With ``gradient``, compute a gradient and take the Adam half step; a flush mix has none. Then, if ``update`` is
    given, write q(s) = Q(x_half - x^) into it and add it to x^."""

    step: Step
    gradient: bool
    update: FrameId | None


@dataclass(frozen=True)
class Flow:
    """One edge's flow of one exchange: e_ij += theirs - ours, then x += gamma_c w_ij e_ij."""

    peer: str
    theirs: FrameId
    ours: FrameId


@dataclass(frozen=True)
class Mix:
    """Apply the flows in this order. With ``fold`` (the step had a gradient), then fold h into the moments."""

    step: Step
    flows: tuple[Flow, ...]
    fold: bool


@dataclass(frozen=True)
class Freeze:
    """Write the block back in the model's dtype and free all of its state."""

    activation: int


@dataclass(frozen=True)
class Evaluate:
    """Compute the mean loss over the node's own held-out sequences. ``when`` names the moment in reports. With ``keep``
    also write the model into the folder of that name in the node's directory."""

    when: str
    keep: str = ""


@dataclass(frozen=True)
class Save:
    """Write the model as an ordinary Hugging Face checkpoint into the folder ``name`` of the node's directory. If the
    copy is not the others', ``alone`` says how it came to be so."""

    name: str
    alone: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """Write everything that a restart needs to continue from ``position``, the next step. At inner step 0 no block is
    active; within an activation the state of the active block is written too."""

    position: Step


@dataclass(frozen=True)
class Adopt:
    """Take over the donors' blocks: each becomes x0 + delta, and ``position`` is the next step. A block in the middle
    of a visit is frozen first."""

    position: Step
    deltas: tuple[Delta, ...]


TrainerCommand = Activate | Connect | HalfStep | Mix | Freeze | Evaluate | Save | Checkpoint | Adopt

# --- to the network ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meet:
    """Begin to greet peers, and compare this agreement with theirs. ``share`` is this node's in the mean, in
    thousandths of an ordinary one."""

    agreement: Agreement
    share: int = SHARE_ONE


@dataclass(frozen=True)
class SendOpen:
    """Offer an edge for an activation: our degree in the graph, our keyframe (None where only moments travel), and the
    inner steps at which we exchange updates over it (none: at all exchanges)."""

    peer: str
    activation: int
    degree: int
    keyframe: FrameId | None
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class SendUpdate:
    """Send one update to one neighbour."""

    peer: str
    update: FrameId


@dataclass(frozen=True)
class SendClose:
    """Close an edge for the rest of an activation. ``applied`` is the last inner step whose flow this end has applied
    (-1: none), so that the other end can stop there or catch up. ``orderly``: the edge has no fault."""

    peer: str
    activation: int
    applied: int
    reason: str
    orderly: bool = False


@dataclass(frozen=True)
class SendBye:
    """Tell a peer that this node has finished the run and needs nothing else."""

    peer: str


@dataclass(frozen=True)
class Release:
    """Free this frame; it is no longer needed."""

    frame: FrameId


# --- to the daemon itself ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fetch:
    """Fetch the newest version of every block from donors; Fetched or FetchFailed is the answer. Donors must have
    finished all activations before ``at_least``."""

    at_least: int


@dataclass(frozen=True)
class AnnounceReady:
    """Tell the members that this node takes part in this activation and all that follow."""

    activation: int


@dataclass(frozen=True)
class AnnounceHeldout:
    """Tell the members this about held-out losses, and keep it for the next start."""

    heldout: Heldout


@dataclass(frozen=True)
class KeepBest:
    """Keep the model after this round as the best, if it was written, with the members' mean held-out loss. Drop all
    others that were written after rounds up to ``until``."""

    number: int
    loss: float
    until: int


@dataclass(frozen=True)
class RestartTrainer:
    """Start another trainer after so many seconds, since the last one died. The answer is TrainerReady or
    TrainerFailed."""

    seconds: float


@dataclass(frozen=True)
class DismissTrainer:
    """End the trainer's process and free its memory, since the training is complete."""


@dataclass(frozen=True)
class Offence:
    """Count an offence of a peer under its reason, and enter it into the peer's record."""

    peer: str
    reason: str
    sentence: str


# --- to the watchers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """Write a log line. ``kind`` is a stable code, ``sentence`` the text, ``about`` the peer that it concerns."""

    kind: str
    sentence: str
    level: str = "info"
    about: str = ""


@dataclass(frozen=True)
class Finish:
    """End this node: ``for_good``, or until the next start."""

    exit_code: int
    sentence: str
    for_good: bool = False


NetworkCommand = Meet | SendOpen | SendUpdate | SendClose | SendBye | Release
_OwnCommand = Fetch | AnnounceReady | AnnounceHeldout | KeepBest | RestartTrainer | DismissTrainer | Offence
Command = TrainerCommand | NetworkCommand | _OwnCommand | Report | Finish
