"""What a check before the start has found: one small value per check, for tables and for programs alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a check ended. ``SKIPPED`` is one that another, failed one has to come before."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """``says`` is what was found, ``do`` what to do about it; ``facts`` are the numbers in it, with their units in
    their names."""

    check: str
    verdict: Verdict
    says: str
    do: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def passed(check: str, says: str, **facts: Any) -> Finding:
    """Nothing to complain of."""
    return Finding(check, Verdict.OK, says, "", facts)


def warned(check: str, says: str, do: str, **facts: Any) -> Finding:
    """A start would work, but somebody should look at it."""
    return Finding(check, Verdict.WARNING, says, do, facts)


def failed(check: str, says: str, do: str, **facts: Any) -> Finding:
    """A start would fail, or the node would not train with the others."""
    return Finding(check, Verdict.FAILED, says, do, facts)


def skipped(check: str, needs: str) -> Finding:
    """Could not be checked: ``needs`` failed."""
    return Finding(check, Verdict.SKIPPED, f"not checked: needs {needs}")
