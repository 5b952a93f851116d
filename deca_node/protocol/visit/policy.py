"""What the owner of a node chose for it, as far as its state machine is concerned."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long the node waits for others, in seconds; how often it evaluates; how often it writes checkpoints.

    ``open`` and ``step`` are the limits of waiting for neighbours, when edges open and at every step. Measured waits
    shorten them, down to ``floor``. A node that begins a run waits ``gather`` for the members (0: for ever); a node
    that resumes waits ``regather`` for all of them, and longer if none is there, unless it may go on ``alone``. A node
    that stops waits ``farewell`` for the other ends of its edges. A node that has finished waits ``finish`` for the
    others. ``stay`` keeps a node whose run is complete until it is told to stop, or for ``stay_seconds`` (0: no limit).

    ``eval_every`` is "round" or "activation"; with any other value the loss is measured at the start and at the end of
    the run only. A run that may stop early measures every round; with ``tells_loss`` the others learn the loss, and
    ``spread`` is how long news takes to reach all members. ``checkpoint_every`` counts steps within a visit; 0 writes
    checkpoints at the end of visits only.
    """

    gather: float
    regather: float = 15.0
    open: float
    step: float
    floor: float = 2.0
    farewell: float = 3.0
    finish: float
    stay: bool
    stay_seconds: float = 0.0
    alone: bool
    eval_every: str
    tells_loss: bool = True
    spread: float = 5.0
    checkpoint_every: int
