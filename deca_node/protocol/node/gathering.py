"""Which members a node waits for before it trains, and what follows where members refuse it.

::

    first start        waits for all expected members, for ``gather`` seconds at most (0: for ever)
    started again      waits for them for ``regather`` seconds, then goes on with those that are there
      nobody is there  waits on for the first that comes, or goes on alone where its owner lets it

A node that is started again may find that the others have finished and are gone. Alone it could only make a model of
its own, so it waits: a member that has finished and stays has the tuned model.

A node whose members refuse it (another run, another version, a certificate or a list that does not admit it) would
also be alone. It ends before it begins if half of the members that it waits for refuse it, or most of those that it
reaches. Within the run it ends, with its work kept, if most of all members refuse it.
"""

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import MismatchError, PeersMissingError
from deca_node.protocol.node.ending import Ending
from deca_node.protocol.node.phases import Cause, Phase
from deca_node.protocol.node.state import NodeState


class Gathering:
    """The wait before the node of this state begins."""

    def __init__(self, state: NodeState, ending: Ending) -> None:
        self._state = state
        self._ending = ending
        self._gather_until: float | None = None
        self._regathered = False
        """Whether a node that was started again has waited for all members for long enough."""
        self._refusal = ""
        """The newest disagreement, as a sentence."""

    @property
    def _returns(self) -> bool:
        return self._state.next > Step(0, 0)

    def begin(self, now: float) -> float | None:
        """The model is loaded. Returns the time at which :meth:`deadline_passed` is due."""
        gather, regather = self._state.policy.gather, self._state.policy.regather
        self._gather_until = now + gather if gather else None
        if self._returns:
            gather = min(gather or regather, regather)
        return now + gather if gather else None

    @property
    def complete(self) -> bool:
        """Whether the node waits for no member any more. It does not wait for a run that goes on elsewhere already, nor
        if it has done all visits."""
        state = self._state
        if state.roster.gathered or state.roster.behind(state.next.activation):
            return True
        return (self._regathered and bool(state.up)) or state.next.activation == len(state.schedule)

    def deadline_passed(self, now: float) -> bool:
        """The wait is over: returns whether the node goes on. If not, it waits on, or has ended."""
        state = self._state
        if self._returns and (state.up or state.policy.alone):
            return True
        if self._returns and state.roster.shunned:
            self._ending.finish(Cause.FAIL, MismatchError.exit_code, self._refusal)
        elif self._returns and not self._regathered and (self._gather_until is None or now < self._gather_until):
            self._regathered = True
            state.deadline = self._gather_until
            state.say(c.Report("nobody", f"{self._nobody()}; start them, or let it go on with --alone", "warning"))
        else:
            sentence = f"waited {state.policy.gather:g} s for {state.awaits()}"
            sentence = f"{sentence}; start them, or wait longer with --wait"
            self._ending.finish(Cause.FAIL, PeersMissingError.exit_code, sentence)
        return False

    def _nobody(self) -> str:
        """Why a node that was started again does not go on."""
        missing = self._state.roster.missing
        return f"none of the other nodes is here ({missing}), and a model that this node trains alone is its own"

    def refused(self, event: e.PeerRefused, now: float) -> None:
        """A peer refuses this node, or the two do not agree."""
        state = self._state
        news = state.roster.disagrees(event.peer)
        self._refusal = sentence = f"no agreement with {event.peer}: {event.sentence}"
        waiting = state.phase in (Phase.LOADING, Phase.GATHERING) and not state.begun
        if waiting and state.roster.outvoted:
            self._ending.finish(Cause.FAIL, MismatchError.exit_code, sentence)
        elif state.begun and state.roster.outcast and state.phase not in (Phase.SAVING, Phase.LEAVING, Phase.STAYING):
            self._ending.wind_up(sentence, now, MismatchError.exit_code)
        elif news:
            state.say(c.Report("refused", sentence, "warning", event.peer))
