"""A node that was away takes over what the others did meanwhile: one attempt at a time, until it is where they are.

::

    ask --> Fetch --> Fetched ----> Adopt --> Adopted
     ^        '-----> FetchFailed, and a pause --.
     '-------------------------------------------'

A trainer may die on the way. What donors give after that was chosen for a model that is gone, so it is asked for anew.
"""

from collections.abc import Callable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.node.roster import NOT_TRAINING
from deca_node.protocol.visit.waits import Attempts


class CatchingUp:
    """What was asked of donors, and what members were told. ``say`` takes commands."""

    def __init__(self, say: Callable[[c.Command], None]) -> None:
        self.away = False
        """Whether members were told not to count on this node."""
        self._say = say
        self._failures = Attempts(1.0, 30.0)
        self._asked = False
        self._stale = False

    def leave(self, position: Step) -> None:
        """Tell the members not to count on this node until it has caught up."""
        if not self.away:
            self.away = True
            self._say(c.AnnounceReady(NOT_TRAINING))
            self._say(c.Report("behind", f"peers are past activation {position.activation}: catching up with them"))

    def ask(self, position: Step) -> None:
        """Get from donors what was done since ``position``."""
        if not self._asked:
            self._asked = True
            self._say(c.Fetch(position.activation + 1))

    def fetched(self, event: e.Fetched, *, wanted: bool) -> bool:
        """What was asked for is here; hand it to the trainer if it still is ``wanted``. False where it has to be asked
        for again."""
        self._asked = False
        self._failures.reset()
        stale, self._stale = self._stale, False
        if wanted and not stale:
            self._say(c.Adopt(Step(event.activation, 0), event.deltas))
        return not stale

    def failed(self, event: e.FetchFailed) -> float:
        """No donor could give it; returns the seconds until it is worth another attempt."""
        self._asked = self._stale = False
        pause = self._failures.next()
        self._say(c.Report("fetch-failed", f"{event.sentence}; trying again in {pause:g} s", "warning"))
        return pause

    def adopted(self, position: Step) -> None:
        """The blocks are taken over: from this activation on, whoever has not begun it yet can count on this node."""
        self._say(c.Checkpoint(position))
        self.back(position)

    def back(self, position: Step) -> None:
        """This node takes part again from here on, caught up or not."""
        if self.away:
            self.away = False
            self._say(c.AnnounceReady(position.activation))

    def trainer_died(self) -> None:
        """What was asked for, and not used yet, belongs to what is lost."""
        self._stale = self._asked
