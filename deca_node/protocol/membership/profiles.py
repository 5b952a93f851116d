"""How patient membership is: one set of numbers for a local network, and what differs elsewhere.

The numbers of probing, suspicion and gossip are those that HashiCorp's memberlist has shipped for years (its
``DefaultLANConfig``, ``DefaultWANConfig`` and ``DefaultLocalConfig``); the rest is ours.
"""

from dataclasses import dataclass, replace

from deca_node.protocol.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All of membership's numbers. Times are seconds."""

    probe_interval: float = 1.0
    """From one probe to the next; times the local health multiplier."""
    probe_timeout: float = 0.5
    """What a direct probe may take before others are asked to try; times the same."""
    indirect_probes: int = 3
    """Members asked to try [k of the SWIM paper]."""
    health_max: int = 8
    """The local health score ends here; the multiplier is the score + 1 [S of the Lifeguard paper]."""
    suspicion_factor: float = 4.0
    """Least suspicion = this * max(1, log10 n) * probe_interval [alpha]."""
    suspicion_stretch: float = 6.0
    """Most suspicion = this * least [beta]."""
    confirmations: int = 2
    """Independent accusers, after the first, by which suspicion has shrunk to its least [K]."""

    gossip_interval: float = 0.2
    gossip_fanout: int = 3
    retransmit_factor: float = 4.0
    """A rumour is passed on at most this * log10(n + 1) times, rounded up [lambda]."""
    rumour_bytes_max: int = 1400
    """Rumours in one packet."""
    push_pull_interval: float = 30.0
    """From one exchange of whole member lists to the next."""
    push_pull_bytes_max: int = 12_288
    """Of one packet; a longer list goes in several."""

    seed_pause: float = 0.3
    """The first pause between two calls to a seed that is not there; it grows by 1.6 up to the next."""
    seed_pause_max: float = 5.0
    seed_check: float = 15.0
    """A seed that is missing from the view is called this often where other members are known."""
    retry_pause: float = 1.0
    """The first pause between two calls to a dead member; it grows by 1.5 up to the next."""
    retry_pause_max: float = 30.0
    forget: float = 86_400.0
    """A member dead for so long is forgotten."""
    members_max: int = 4096
    """Names that are remembered at once, whatever their state."""

    challenge: float = 3.0
    """How long the holder of a name has to answer when another process claims it."""
    oversleep: float = 1.0
    """A deadline heard so late means that this process itself stood still."""

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
