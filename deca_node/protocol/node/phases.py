"""The phases of a node, and the table of what leads from one to another.

docs/ARCHITECTURE.md has the picture of it. What happens within VISITING is the machine of
:mod:`deca_node.protocol.visit.visit`.
"""

from enum import StrEnum

from deca_node.protocol.transitions import Transitions


class Phase(StrEnum):
    """What a node is doing."""

    LOADING = "loading"
    GATHERING = "gathering"
    EVALUATING = "evaluating"
    VISITING = "visiting"
    KEEPING = "keeping"
    FETCHING = "fetching"
    AWAITING_TURN = "awaiting-turn"
    PAUSED = "paused"
    SAVING = "saving"
    LEAVING = "leaving"
    STAYING = "staying"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = frozenset({Phase.DONE, Phase.STOPPED, Phase.FAILED})
"""A node in these phases does nothing any more. Only ``DONE`` means that its tuned model is written."""


class Cause(StrEnum):
    """Why a node goes from one phase to another."""

    LOADED = "the model is loaded"
    MEASURE = "the loss is to be measured"
    VISIT = "a visit begins"
    WRITTEN = "the block is written back"
    TRAINED = "the last block is trained and measured"
    SAVED = "the tuned model is written"
    STAY = "the run is complete, and the node stays"
    COMPLETE = "the run is complete, and the node ends"
    BEHIND = "half of the training peers are ahead"
    ADOPTED = "the donors' blocks are taken over"
    PAUSE = "a pause was asked for"
    STOP = "a stop was asked for"
    DIED = "the trainer died"
    FAIL = "the node cannot go on"


P, W = Phase, Cause
_NEXT: dict[Cause, Phase] = {
    W.PAUSE: P.PAUSED,
    W.BEHIND: P.FETCHING,
    W.VISIT: P.VISITING,
    W.MEASURE: P.EVALUATING,
    W.TRAINED: P.SAVING,
}
"""What a node does between two visits; the order of the questions is that of ``Node._go_on``."""
_ENDS: dict[Cause, Phase] = {W.DIED: P.LOADING, W.STOP: P.STOPPED, W.FAIL: P.FAILED}


def _next_but(*causes: Cause) -> dict[Cause, Phase]:
    return {cause: phase for cause, phase in _NEXT.items() if cause not in causes}


NODE_PHASES: Transitions[Phase, Cause, Phase] = Transitions(
    "node",
    {
        P.LOADING: {W.LOADED: P.GATHERING, W.STAY: P.STAYING, W.COMPLETE: P.DONE, **_NEXT, **_ENDS},
        P.GATHERING: {**_next_but(W.TRAINED), **_ENDS},
        P.EVALUATING: {**_next_but(W.MEASURE), **_ENDS},
        P.VISITING: {W.WRITTEN: P.KEEPING, **_next_but(W.MEASURE, W.TRAINED), **_ENDS},
        P.KEEPING: {**_NEXT, **_ENDS},
        P.FETCHING: {W.ADOPTED: P.AWAITING_TURN, **_NEXT, **_ENDS},
        P.AWAITING_TURN: {**_NEXT, **_ENDS},
        P.PAUSED: {**_next_but(W.PAUSE), **_ENDS},
        P.SAVING: {W.SAVED: P.LEAVING, **_ENDS, W.STOP: P.DONE},
        P.LEAVING: {W.STAY: P.STAYING, W.COMPLETE: P.DONE, W.STOP: P.DONE},
        P.STAYING: {W.STOP: P.DONE},
    },
)
