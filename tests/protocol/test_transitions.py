"""Tables of transitions: what is in a table happens, everything else is an error."""

from enum import Enum
from typing import Any

import pytest

from deca_node.protocol.membership.changes import MEMBER_STATES, UNKNOWN
from deca_node.protocol.membership.facts import MemberState
from deca_node.protocol.node.phases import NODE_PHASES, Cause, Phase
from deca_node.protocol.transitions import Transitions
from deca_node.protocol.visit.phases import EDGE_STATES, VISIT_PHASES, EdgeCause, EdgeState, VisitCause, VisitPhase

MACHINES: dict[str, tuple[Transitions[Any, Any, Any], list[Any], list[Any]]] = {
    "node": (NODE_PHASES, list(Phase), list(Cause)),
    "visit": (VISIT_PHASES, list(VisitPhase), list(VisitCause)),
    "edge": (EDGE_STATES, list(EdgeState), list(EdgeCause)),
    "member": (MEMBER_STATES, [UNKNOWN, *MemberState], [UNKNOWN, *MemberState]),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_transition_outside_of_its_table_is_a_bug(machine: str) -> None:
    table, states, causes = MACHINES[machine]
    outside = [(state, cause) for state in states for cause in causes if cause not in table.rows.get(state, {})]
    assert outside
    for state, cause in outside:
        with pytest.raises(AssertionError, match=f"the {machine} has no transition from {state} when {cause}"):
            table.after(state, cause)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_of_a_machine_and_every_cause_is_in_its_table(machine: str) -> None:
    table, states, causes = MACHINES[machine]
    pairs = [(cause, outcome) for row in table.rows.values() for cause, outcome in row.items()]
    if machine == "member":
        assert set(table.rows) == set(states)
    else:
        assert set(table.rows) | {after for _, after in pairs} == set(states)
    assert {cause for cause, _ in pairs} == set(causes)


def test_what_follows_is_what_the_table_says() -> None:
    class Door(Enum):
        OPEN = "open"
        SHUT = "shut"

    table = Transitions("door", {Door.OPEN: {"pushed": Door.SHUT}})
    assert table.after(Door.OPEN, "pushed") is Door.SHUT
    with pytest.raises(AssertionError, match=r"the door has no transition from Door\.SHUT when pushed"):
        table.after(Door.SHUT, "pushed")
