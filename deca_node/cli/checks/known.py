"""The facts that the checks have found so far. Later checks build on those of earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.settings.sources import Loaded
from deca_node.protocol.planning.case import Case

if TYPE_CHECKING:
    from deca_node.daemon.security.security import Security


@dataclass
class Known:
    """``load`` reads the settings, ``say`` hears which check runs now, ``seconds_max`` is the time limit per peer. The
    checks fill in the rest: ``model`` is the model in shapes without storage, ``ranks`` the processes of the trainer,
    ``records`` counts usable records if the data may be used, ``agreed`` holds the fields that a peer's agreement is
    compared with, ``clock_offsets`` how many seconds each peer's clock is ahead of this one."""

    load: Callable[[], Loaded]
    say: Callable[[str], None]
    seconds_max: float
    loaded: Loaded | None = None
    security: Security | None = None
    own: OwnAddress | None = None
    case: Case | None = None
    model: Any = None
    ranks: int = 1
    records: int = 0
    node_runs: bool = False
    agreed: dict[str, str] = field(default_factory=dict)
    clock_offsets: dict[str, float] = field(default_factory=dict)

    def has_passed(self, check: str) -> bool:
        """Whether a check that others need has left its facts here."""
        made = {"settings": self.loaded, "peers file": self.own and self.security, "model": self.case}
        return made[check] is not None

    @property
    def settings(self) -> Loaded:
        """The settings, for checks that need them."""
        assert self.loaded is not None
        return self.loaded
