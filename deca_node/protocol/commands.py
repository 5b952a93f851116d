"""What the core asks for. One frozen dataclass per kind; whoever holds the core performs them in order.

The first group goes to the trainer, which answers every one of its commands with exactly one event.
The second goes to the network, the third to the daemon itself, the last to the people who watch.
"""

from dataclasses import dataclass

from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import Delta, FrameId
from deca_node.protocol.agreed.schedule import Activation, Step

# --- to the trainer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activate:
    """Thaw a block, start its moments at zero, and write its keyframe into ``keyframe`` (None: no neighbours)."""

    activation: Activation
    keyframe: FrameId | None


@dataclass(frozen=True)
class Neighbour:
    """An open edge: the peer, its mixing weight w_ij, and the keyframe it opened with."""

    peer: str
    weight: float
    keyframe: FrameId


@dataclass(frozen=True)
class Connect:
    """Absorb the neighbours' keyframes: e_ij = x^_j - x^_i for each; ``ours`` is what was sent to them all."""

    activation: int
    neighbours: tuple[Neighbour, ...]
    ours: FrameId | None


@dataclass(frozen=True)
class HalfStep:
    """Take one gradient and the Adam half step (``gradient``), or none in a flush mix; then, if ``update``
    is given, write q(s) = Q(x_half - x^) into it and add it to x^."""

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
    """Apply flows in this order, then form h and fold it into the moments (``fold``: the step had a gradient)."""

    step: Step
    flows: tuple[Flow, ...]
    fold: bool


@dataclass(frozen=True)
class Freeze:
    """Write the block back in the model's dtype and let go of all its state."""

    activation: int


@dataclass(frozen=True)
class Evaluate:
    """Mean loss over the node's own held-out sequences; ``when`` names the moment in reports."""

    when: str


@dataclass(frozen=True)
class Save:
    """Write the model as an ordinary Hugging Face checkpoint into the folder ``name`` of the node's directory."""

    name: str


@dataclass(frozen=True)
class Checkpoint:
    """Write down all that is needed to go on from here after a crash: ``position`` is the next step to be done.
    At inner step 0 nothing is active; within an activation the active block's state is written too."""

    position: Step


@dataclass(frozen=True)
class Adopt:
    """Take over what donors gave: these blocks become x0 + delta, and ``position`` is the next step to be done.
    A block that was in the middle of a visit is frozen as it stands before."""

    position: Step
    deltas: tuple[Delta, ...]


TrainerCommand = Activate | Connect | HalfStep | Mix | Freeze | Evaluate | Save | Checkpoint | Adopt

# --- to the network ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meet:
    """Begin to greet peers, with this agreement to compare."""

    agreement: Agreement


@dataclass(frozen=True)
class SendOpen:
    """Offer an edge for an activation: our degree in the graph, and our keyframe."""

    peer: str
    activation: int
    degree: int
    keyframe: FrameId


@dataclass(frozen=True)
class SendUpdate:
    """Send one update to one neighbour."""

    peer: str
    update: FrameId


@dataclass(frozen=True)
class SendClose:
    """Close an edge for the rest of an activation; ``applied`` is the last inner step whose flow was
    applied here (-1: none), so that the other end can stop there or catch up. ``orderly``: nothing is wrong with the
    edge."""

    peer: str
    activation: int
    applied: int
    reason: str
    orderly: bool = False


@dataclass(frozen=True)
class SendBye:
    """Tell a peer that this node has finished the run and needs nothing more."""

    peer: str


@dataclass(frozen=True)
class Release:
    """Nobody needs this frame any more."""

    frame: FrameId


# --- to the daemon itself ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fetch:
    """Get from donors the newest version of every block; answered by Fetched or FetchFailed. ``at_least`` is the
    activation that donors must have reached (finished all before it)."""

    at_least: int


@dataclass(frozen=True)
class AnnounceReady:
    """Tell the members that this node takes part in every activation from this one on."""

    activation: int


@dataclass(frozen=True)
class RestartTrainer:
    """The trainer died: start another after so many seconds; it answers with TrainerReady or TrainerFailed."""

    seconds: float


@dataclass(frozen=True)
class DismissTrainer:
    """There is nothing left to train: end the trainer's process, and with it the memory it holds."""


@dataclass(frozen=True)
class Offence:
    """A peer has broken a rule: count it under its reason, and hold it against the peer."""

    peer: str
    reason: str
    sentence: str


# --- to the watchers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """Something worth a log line: ``kind`` is stable, ``sentence`` is for people, ``about`` which peer it is."""

    kind: str
    sentence: str
    level: str = "info"
    about: str = ""


@dataclass(frozen=True)
class Finish:
    """The run is over for this node: ``for_good``, or until it is started again."""

    exit_code: int
    sentence: str
    for_good: bool = False


NetworkCommand = Meet | SendOpen | SendUpdate | SendClose | SendBye | Release
_OwnCommand = Fetch | AnnounceReady | RestartTrainer | DismissTrainer | Offence
Command = TrainerCommand | NetworkCommand | _OwnCommand | Report | Finish
