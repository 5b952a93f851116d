"""What the tests of state machines share."""

from typing import Any

import pytest

from deca_node.protocol.transitions import Transitions

Seen = set[tuple[str, Any, Any]]
"""Machine, state and cause of every transition that was taken."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The transitions that machines take during a test."""
    taken: Seen = set()
    after = Transitions.after

    def noted(table: Transitions[Any, Any, Any], state: Any, cause: Any) -> Any:
        outcome = after(table, state, cause)
        taken.add((table.machine, state, cause))
        return outcome

    monkeypatch.setattr(Transitions, "after", noted)
    return taken
