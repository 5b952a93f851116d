"""How the members of a run stop it early together, and no node alone.

:mod:`deca_node.protocol.agreed.stopping` has the rule. Here are its inputs and its effect at one node::

    Evaluated        --> own loss of the round --> AnnounceHeldout, to all members
    MembersChanged   --> the losses and the announcements of the others
    the rule holds   --> announce an activation ahead of all members --> AnnounceHeldout
    that activation  --> the node goes on with the final flush instead

A round is judged when every member that takes part has told its loss, and at the latest when this node has measured the
next one. It is judged only if more than half of all members that this node has known told a loss. So of two halves of a
broken network at most one stops the run. A node that hears of the stop too late goes to the final flush at the end of
its visit; if most peers are there already, it catches up with them.
"""

import math
from collections.abc import Callable, Mapping

from deca_node.protocol import commands as c
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.stopping import ROUNDS_TOLD_MAX, Heldout, best_round, mean_loss
from deca_node.protocol.node.roster import Roster
from deca_node.protocol.visit.policy import Policy


class Stopping:
    """The held-out losses that one node knows, and its decision. ``own`` is what an earlier process of this node told.
    ``say`` takes commands."""

    def __init__(
        self, name: str, settings: RunSettings, policy: Policy, roster: Roster, own: Heldout, say: Callable[..., None]
    ) -> None:
        self.own = own
        self._name = name
        self._patience, self._gain = settings.early_stop_rounds, settings.early_stop_gain
        self._policy = policy
        self._roster = roster
        self._say = say
        self._losses: dict[str, dict[int, float | None]] = {name: dict(own.losses)}
        self._visit_seconds = 0.0
        self._judged = -1
        """The newest round that was judged."""

    @property
    def on(self) -> bool:
        """Whether this run may stop early."""
        return self._patience > 0

    @property
    def stop_at(self) -> int | None:
        """The activation at which the run stops early; None if that is not decided."""
        return self.own.stop_at

    def after(self, position: Step, schedule: Schedule) -> Step:
        """Where a node at ``position``, between two visits, goes on: there, or with the final flush."""
        first = schedule.rounds * schedule.blocks
        stopped = self.stop_at is not None and self.stop_at <= position.activation < first and not position.inner
        return Step(first, 0) if stopped else position

    # --- what the node hears ------------------------------------------------------------------------

    def visited(self, seconds: float) -> None:
        """A visit took so long."""
        self._visit_seconds = seconds

    def measured(self, number: int, loss: float, tokens: int) -> None:
        """This node's held-out loss after a round. The first value of a round stands, since others may have judged by
        it."""
        own = self._losses[self._name]
        if not self.on or number in own:
            return
        tells = self._policy.tells_loss and tokens > 0 and math.isfinite(loss)
        own[number] = loss if tells else None
        newest = tuple(sorted(own.items())[-ROUNDS_TOLD_MAX:])
        self._tell(Heldout(newest, self.stop_at))

    def heard(self, told: Mapping[str, Heldout]) -> None:
        """What the present members tell."""
        if not self.on:
            return
        for name, heldout in told.items():
            if name != self._name:
                known = self._losses.setdefault(name, {})
                for number, loss in heldout.losses:
                    known.setdefault(number, loss)
        announced = [heldout.stop_at for heldout in told.values() if heldout.stop_at is not None]
        self._stop(min(announced, default=None), "as another member announces")

    # --- what follows from it -----------------------------------------------------------------------

    def judge(self, next_activation: int, schedule: Schedule) -> None:
        """Keep the best model, and announce the end of the run if the rule says so. To be called with every news."""
        own = self._losses[self._name]
        if not self.on or not own:
            return
        newest = max(own)
        until = newest if self._complete(newest, schedule.blocks) else newest - 1
        if until <= self._judged or not self._enough(until):
            return
        best = self._keep_best(until)
        if best is None or until - best < self._patience or self.stop_at is not None:
            return
        ahead = max(next_activation, self._roster.farthest) + self._lead()
        if ahead < schedule.rounds * schedule.blocks:
            loss = mean_loss(self._losses, best)
            self._stop(ahead, f"since no round after round {best} has a lower held-out loss than {loss:.4f}")

    def judge_last(self) -> None:
        """The run is over for this node: judge its last rounds by what is known."""
        until = max(self._losses[self._name], default=-1)
        if self.on and until > self._judged:
            self._keep_best(until)

    def _keep_best(self, until: int) -> int | None:
        """Judge the rounds up to ``until``; returns the best."""
        self._judged = until
        best = best_round(self._losses, until, self._gain)
        if best is not None:
            self._say(c.KeepBest(best, mean_loss(self._losses, best), until))
        return best

    def _complete(self, number: int, blocks: int) -> bool:
        """Whether every member that takes part has told about this round, or about one after it. A member that came
        after the round had begun need not."""
        begun = max(0, number - 1) * blocks
        return all(
            max(self._losses.get(name, {}), default=-1) >= number
            for name, ready in self._roster.taking_part.items()
            if ready <= begun
        )

    def _enough(self, number: int) -> bool:
        """Whether more than half of all members that were ever known told a loss of this round."""
        telling = sum(told.get(number) is not None for told in self._losses.values())
        return 2 * telling > self._roster.ever

    def _lead(self) -> int:
        """Visits that take as long as the news needs to reach all members."""
        return 1 + math.ceil(self._policy.spread / max(self._visit_seconds, 1e-3))

    def _stop(self, activation: int | None, why: str) -> None:
        known = self.stop_at
        if activation is None or (known is not None and known <= activation):
            return
        self._tell(Heldout(self.own.losses, activation))
        self._say(c.Report("stops-early", f"the run stops early, before activation {activation}, {why}"))

    def _tell(self, own: Heldout) -> None:
        self.own = own
        self._say(c.AnnounceHeldout(own))
