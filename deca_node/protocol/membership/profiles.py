"""The numbers of membership: one set for a local network, and what differs on a wide one and on one machine.

The numbers of probing, suspicion and gossip are those that HashiCorp's memberlist has shipped for years (its
``DefaultLANConfig``, ``DefaultWANConfig`` and ``DefaultLocalConfig``). The others are our own choice.
"""

from dataclasses import dataclass, replace

from deca_node.protocol.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All numbers of membership. Times are in seconds."""

    probe_interval: float = 1.0
    """The time from one probe to the next, before it is multiplied by local health."""
    probe_timeout: float = 0.5
    """How long a direct probe may take before other members are asked to try, multiplied likewise."""
    indirect_probes: int = 3
    """How many members are asked to try [k of the SWIM paper]."""
    health_max: int = 8
    """The greatest local health score; the multiplier is the score + 1 [S of the Lifeguard paper]."""
    suspicion_factor: float = 4.0
    """Least suspicion = this * max(1, log10 n) * probe_interval [alpha]."""
    suspicion_stretch: float = 6.0
    """Most suspicion = this * least [beta]."""
    confirmations: int = 2
    """After so many independent accusers beside the first, suspicion is at its least [K]."""

    gossip_interval: float = 0.2
    gossip_fanout: int = 3
    retransmit_factor: float = 4.0
    """A rumour is passed on at most this * log10(n + 1) times, rounded up [lambda]."""
    rumour_bytes_max: int = 1400
    """The most bytes of rumours in one packet."""
    push_pull_interval: float = 30.0
    """The time from one exchange of whole member lists to the next."""
    push_pull_bytes_max: int = 12_288
    """The most bytes of a member list in one packet; a longer list takes several."""

    seed_pause: float = 0.3
    """The first pause between two calls to a missing seed; pauses grow by 1.6, up to ``seed_pause_max``."""
    seed_pause_max: float = 5.0
    seed_check: float = 15.0
    """The pause between two calls to a missing seed once other members are known."""
    retry_pause: float = 1.0
    """The first pause between two calls to a dead member; pauses grow by 1.5, up to ``retry_pause_max``."""
    retry_pause_max: float = 30.0
    forget: float = 86_400.0
    """After so long a dead member is forgotten."""
    members_max: int = 4096
    """The most members that are known at once, in any state."""

    challenge: float = 3.0
    """How long the holder of a name has to answer when another process appears under it."""
    oversleep: float = 1.0
    """If a deadline is noticed this late, this process itself stood still."""

    def __post_init__(self) -> None:
        if not 0 < self.probe_timeout < self.probe_interval:
            raise SettingsError(
                "membership needs 0 < probe_timeout < probe_interval, so that other members have time to try"
            )


LAN = Profile()
"""Machines of one site."""

WAN = replace(
    LAN,
    probe_interval=5.0,
    probe_timeout=3.0,
    suspicion_factor=6.0,
    gossip_interval=0.5,
    gossip_fanout=4,
    push_pull_interval=60.0,
    challenge=10.0,
)
"""Sites far apart, over links that stall."""

LOCAL = replace(
    LAN,
    probe_timeout=0.2,
    indirect_probes=1,
    suspicion_factor=3.0,
    retransmit_factor=2.0,
    gossip_interval=0.1,
    push_pull_interval=15.0,
)
"""Processes of one machine."""

PROFILES = {"lan": LAN, "wan": WAN, "local": LOCAL}
