"""How a node ends: because it was asked to, because it has to, or because the run is complete.

::

    asked to stop     what was trained is kept first     Finish, code 0
    failed            at once                            Finish, the failure's code
    complete          a goodbye to everybody             Finish, code 0; or, where it is to stay, STAYING

A node that stays needs no trainer any more. It remains a member that gives its blocks to whoever comes late, answers
whoever asks for its status, and ends when it is told to.
"""

from deca_node.protocol import commands as c
from deca_node.protocol.node.state import Phase, Standing

COMPLETE = "the run is complete"


class Ending(Standing):
    """The ways out of a run."""

    def _wind_up(self, ending: str, now: float) -> None:
        """End as soon as what was trained is kept."""
        self._ending = self._ending or ending
        if self.phase is Phase.VISITING and self.visit is not None and self.visit.worth_keeping:
            self.visit.interrupt(now)
        elif self.phase is Phase.STAYING:
            self._finish(0, COMPLETE)
        elif self.phase not in (Phase.KEEPING, Phase.SAVING):
            self._finish(0, self._ending)

    def _say_goodbye(self, now: float) -> None:
        """Nothing is left to do here; others may still need something."""
        for peer in sorted(self.up):
            self._say(c.SendBye(peer))
        self.phase, self._deadline = Phase.LEAVING, now + self._policy.finish

    def _complete(self, sentence: str = COMPLETE) -> None:
        """Nobody needs anything any more, or not soon."""
        if not self._policy.stay:
            self._finish(0, sentence, for_good=True)
            return
        self.phase, self._deadline = Phase.STAYING, None
        self._say(c.Report("complete", f"{sentence}; staying to be looked at, until told to stop"))
        self._say(c.DismissTrainer())

    def _finish(self, exit_code: int, sentence: str, *, for_good: bool = False) -> None:
        if self.phase is Phase.VISITING and self.visit is not None:
            self.visit.abandon(f"{self.name} ends")
        self._visits.decline_all("ends")
        self.phase, self._deadline = Phase.DONE, None
        self._say(c.Finish(exit_code, sentence, for_good or self._leaving))
