"""How a node ends: stopped as asked, failed, or with the run complete.

::

    asked to stop     once what was trained is kept      Finish, code 0
    failed            at once                            Finish, the failure's code
    complete          after a goodbye to every peer      Finish, code 0; or STAYING where the node is to stay

A node that stays needs no trainer any more. It remains a member: it gives its blocks to members that come late, answers
requests for its status, and ends when it is told to.
"""

from deca_node.protocol import commands as c
from deca_node.protocol.node.phases import Cause, Phase
from deca_node.protocol.node.state import NodeState

COMPLETE = "the run is complete"


class Ending:
    """The ways out of a run, for the node of this state."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    def wind_up(self, sentence: str, now: float, exit_code: int = 0) -> None:
        """A stop was asked for, or the others refuse this node: end as soon as what was trained is kept."""
        state = self._state
        if not state.ending:
            state.ending, state.ending_code = sentence, exit_code
        if state.phase is Phase.VISITING and state.active.worth_keeping:
            state.active.interrupt(now)
        elif state.phase is Phase.STAYING:
            self.finish(Cause.STOP, 0, COMPLETE)
        elif state.phase not in (Phase.KEEPING, Phase.SAVING):
            self.finish(Cause.STOP, state.ending_code, state.ending)

    def say_goodbye(self, now: float) -> None:
        """This node has finished; other nodes may still need something from it."""
        for peer in sorted(self._state.up):
            self._state.say(c.SendBye(peer))
        self._state.move(Cause.SAVED, now + self._state.policy.finish)

    def complete(self, now: float, sentence: str = COMPLETE) -> None:
        """No peer needs anything from this node any more, or it has waited long enough for those that may."""
        policy = self._state.policy
        if not policy.stay:
            self.finish(Cause.COMPLETE, 0, sentence, for_good=True)
            return
        self._state.move(Cause.STAY, now + policy.stay_seconds if policy.stay_seconds else None)
        until = f"for {policy.stay_seconds:g} s, or until" if policy.stay_seconds else "until"
        stays = f"{sentence}; the node stays, so that it can be looked at, {until} it is told to stop"
        self._state.say(c.Report("complete", stays))
        self._state.say(c.DismissTrainer())

    def finish(self, cause: Cause, exit_code: int, sentence: str, *, for_good: bool = False) -> None:
        """End now. A visit that is under way is abandoned."""
        state = self._state
        if state.phase is Phase.VISITING:
            state.active.abandon(f"{state.name} ends")
        state.visits.decline_all("ends")
        state.move(cause)
        state.say(c.Finish(exit_code, sentence, for_good or state.leaving))
