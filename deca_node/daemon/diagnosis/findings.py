"""The result of a check before a start, as one small value for tables and for programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a check ended. A check is ``SKIPPED`` if it needs another check that failed."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """``says`` is the result as a sentence, ``do`` the advice; ``facts`` holds the numbers, with units in their
    names."""

    check: str
    verdict: Verdict
    says: str
    do: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def passed(check: str, says: str, **facts: Any) -> Finding:
    """A check without complaint."""
    return Finding(check, Verdict.OK, says, "", facts)


def warned(check: str, says: str, do: str, **facts: Any) -> Finding:
    """A start would work, but a person should look at the result."""
    return Finding(check, Verdict.WARNING, says, do, facts)


def failed(check: str, says: str, do: str, **facts: Any) -> Finding:
    """A start would fail, or the node would not train with the others."""
    return Finding(check, Verdict.FAILED, says, do, facts)


def skipped(check: str, needs: str) -> Finding:
    """A check that was not made because the check ``needs`` failed."""
    return Finding(check, Verdict.SKIPPED, f"not checked: needs {needs}")
