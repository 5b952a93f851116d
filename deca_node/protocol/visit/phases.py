"""The phases of a visit and the states of an edge, each with the table of what leads from one to another.

docs/ARCHITECTURE.md has the pictures of both.
"""

from enum import StrEnum

from deca_node.protocol.transitions import Transitions


class VisitPhase(StrEnum):
    """What a visit is doing."""

    ACTIVATING = "activating"
    OPENING = "opening"
    CONNECTING = "connecting"
    STEPPING = "stepping"
    WAITING = "waiting"
    DRAINING = "draining"
    STANDING = "standing"
    FREEZING = "freezing"
    OVER = "over"


class VisitCause(StrEnum):
    """Why a visit goes from one phase to another."""

    ACTIVATED = "the keyframe is written"
    OPENED = "every edge is open or given up"
    STEP = "a step is left"
    STEPPED = "the half step is done"
    NO_STEP = "no step is left, or the visit is interrupted"
    EVEN = "every edge is even or closed"
    STAND = "the same, but steps are left"
    KEPT = "the block or the checkpoint is written"
    ABANDONED = "the trainer died, or the node ends"


_P, _W = VisitPhase, VisitCause

VISIT_PHASES: Transitions[VisitPhase, VisitCause, VisitPhase] = Transitions(
    "visit",
    {
        _P.ACTIVATING: {_W.ACTIVATED: _P.OPENING, _W.ABANDONED: _P.OVER},
        _P.OPENING: {_W.OPENED: _P.CONNECTING, _W.ABANDONED: _P.OVER},
        _P.CONNECTING: {_W.STEP: _P.STEPPING, _W.NO_STEP: _P.DRAINING, _W.ABANDONED: _P.OVER},
        _P.STEPPING: {_W.STEPPED: _P.WAITING, _W.ABANDONED: _P.OVER},
        _P.WAITING: {_W.STEP: _P.STEPPING, _W.NO_STEP: _P.DRAINING, _W.ABANDONED: _P.OVER},
        _P.DRAINING: {_W.EVEN: _P.FREEZING, _W.STAND: _P.STANDING, _W.ABANDONED: _P.OVER},
        _P.STANDING: {_W.STEP: _P.STEPPING, _W.KEPT: _P.OVER, _W.ABANDONED: _P.OVER},
        _P.FREEZING: {_W.KEPT: _P.OVER, _W.ABANDONED: _P.OVER},
    },
)


class EdgeState(StrEnum):
    """How far an edge is open at its two ends."""

    OFFERED = "offered"
    OPEN = "open"
    CLOSING = "closing"
    SETTLED = "settled"
    CLOSED = "closed"


class EdgeCause(StrEnum):
    """Why an edge goes from one state to another, as its end at this node sees it."""

    THEIR_OFFER = "the other end opens"
    OUR_CLOSE = "this end closes"
    THEIR_CLOSE = "the other end closes"
    EVEN = "this end has caught up"
    LOST = "the link is lost, or the visit ends"


_S, _E = EdgeState, EdgeCause

EDGE_STATES: Transitions[EdgeState, EdgeCause, EdgeState] = Transitions(
    "edge",
    {
        _S.OFFERED: {
            _E.THEIR_OFFER: _S.OPEN,
            _E.OUR_CLOSE: _S.CLOSED,
            _E.THEIR_CLOSE: _S.CLOSED,
            _E.LOST: _S.CLOSED,
        },
        _S.OPEN: {_E.OUR_CLOSE: _S.CLOSING, _E.THEIR_CLOSE: _S.SETTLED, _E.LOST: _S.CLOSED},
        _S.CLOSING: {_E.THEIR_CLOSE: _S.SETTLED, _E.LOST: _S.CLOSED},
        _S.SETTLED: {_E.EVEN: _S.CLOSED, _E.LOST: _S.CLOSED},
    },
)
