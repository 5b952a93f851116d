"""How a node that was away takes over what the others did meanwhile: one attempt at a time, until one succeeds.

::

    ask --> Fetch --> Fetched ----> Adopt --> Adopted
     ^        '-----> FetchFailed, and a pause --.
     '-------------------------------------------'

If the trainer dies meanwhile, the blocks that donors then give were chosen for a model that is lost. The node asks
anew.
"""

from collections.abc import Callable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.node.roster import NOT_TRAINING
from deca_node.protocol.visit.waits import Attempts


class CatchingUp:
    """The requests to donors, and what the members were told. ``say`` takes commands."""

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
        """Ask donors for the blocks that were trained since ``position``, unless they were asked already."""
        if not self._asked:
            self._asked = True
            self._say(c.Fetch(position.activation + 1))

    def fetched(self, event: e.Fetched, *, wanted: bool) -> bool:
        """The blocks are here: hand them to the trainer if they are still ``wanted``. False where they must be asked
        for again."""
        self._asked = False
        self._failures.reset()
        stale, self._stale = self._stale, False
        if wanted and not stale:
            self._say(c.Adopt(Step(event.activation, 0), event.deltas))
        return not stale

    def failed(self, event: e.FetchFailed) -> float:
        """No donor could give the blocks. Returns the seconds until the next attempt."""
        self._asked = self._stale = False
        pause = self._failures.next()
        self._say(c.Report("fetch-failed", f"{event.sentence}; trying again in {pause:g} s", "warning"))
        return pause

    def adopted(self, position: Step) -> None:
        """The trainer has taken the blocks over: members can count on this node from this activation on."""
        self._say(c.Checkpoint(position))
        self.back(position)

    def back(self, position: Step) -> None:
        """This node takes part again from ``position`` on, caught up or not."""
        if self.away:
            self.away = False
            self._say(c.AnnounceReady(position.activation))

    def trainer_died(self) -> None:
        """The blocks that are being fetched no longer fit, since the trainer's model is lost."""
        self._stale = self._asked
