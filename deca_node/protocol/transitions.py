"""The transitions of a state machine as a table. The machine runs from it, and the pictures in the documents are drawn
from it (tools/write_state_diagrams.py)."""

from collections.abc import Mapping
from typing import Generic, TypeVar

StateT = TypeVar("StateT")
CauseT = TypeVar("CauseT")
OutcomeT = TypeVar("OutcomeT")


class Transitions(Generic[StateT, CauseT, OutcomeT]):
    """``rows[state][cause]`` is what follows when ``cause`` happens in ``state``: most often the next state.
    ``machine`` names the machine in pictures and errors."""

    def __init__(self, machine: str, rows: Mapping[StateT, Mapping[CauseT, OutcomeT]]) -> None:
        self.machine = machine
        self.rows = rows

    def after(self, state: StateT, cause: CauseT) -> OutcomeT:
        """What follows. Raises AssertionError where the table has no such transition: the machine has a bug."""
        row = self.rows.get(state, {})
        if cause not in row:
            raise AssertionError(f"the {self.machine} has no transition from {state} when {cause}")
        return row[cause]
