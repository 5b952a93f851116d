"""The transitions of a state machine as a table.

The machine runs from its table, and tools/write_state_diagrams.py draws the pictures in the documents from it.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

StateT = TypeVar("StateT")
CauseT = TypeVar("CauseT")
OutcomeT = TypeVar("OutcomeT")


class Transitions(Generic[StateT, CauseT, OutcomeT]):
    """``rows[state][cause]`` is the outcome when ``cause`` happens in ``state``, usually the next state. ``machine``
    names the machine in pictures and errors."""

    def __init__(self, machine: str, rows: Mapping[StateT, Mapping[CauseT, OutcomeT]]) -> None:
        self.machine = machine
        self.rows = rows

    def after(self, state: StateT, cause: CauseT) -> OutcomeT:
        """The outcome. Raises AssertionError if the table has no such transition, which is a bug of the machine."""
        row = self.rows.get(state, {})
        if cause not in row:
            raise AssertionError(f"the {self.machine} has no transition from {state} when {cause}")
        return row[cause]
