"""Every reason for which something is refused, in one table: what it means, and whether it is held against the sender.

A refusal has three faces: its code, which is a label of ``deca_refusals_total`` and travels in a Refusal; a sentence
for the one who reads the log at either end; and, for an *offence*, an entry in its sender's record
(:mod:`deca_node.protocol.quarantine`). An offence is what no node does that keeps the rules, whatever its clock, its
settings or its network are like. What may befall an honest one, such as an old certificate, is refused and forgiven.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """When this is said, in words, and whether the sender has to answer for it."""

    when: str
    offence: bool = False


@dataclass(frozen=True)
class Problem:
    """Why there is no stream to a peer: the code of the refusal behind it (empty where nothing was refused), and a
    sentence for people."""

    code: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def _offence(when: str) -> Reason:
    return Reason(when, offence=True)


REASONS: Mapping[str, Reason] = {
    # What comes over a stream, as bytes and messages.
    "malformed": _offence("no message of the protocol, or a field that cannot be"),
    "checksum": _offence("data that is not what its checksum says"),
    "size": _offence("a frame, chunk or message of another size than it must have"),
    "unexpected": _offence("a message at the wrong time"),
    "gap": _offence("a chunk that is not the next one of its frame"),
    "replay": _offence("a frame that was sent before"),
    "flood": _offence("a frame without credit"),
    "forged": _offence("a membership packet in somebody else's name"),
    "out-of-order": _offence("an update that is not the one that follows the last"),
    # What the trainer finds in a frame.
    "bad-length": _offence("codes of another length than the block takes"),
    "not-finite": _offence("numbers that are NaN or infinite, or scales that no encoder writes"),
    "bad-codes": _offence("codes that no encoder writes"),
    "bad-places": _offence("places of elements that do not rise, or lie outside of their group"),
    "wild-norm": _offence("a keyframe or update far larger than its neighbours and its history allow"),
    "wild-signal": _offence("a moment signal far larger than its neighbours and its history allow"),
    "unknown-block": Reason("a version of a block that the model does not have"),
    # Who calls.
    "version": Reason("another version of the protocol"),
    "address": Reason("a caller that means somebody else"),
    "stranger": Reason("a name that is no member's"),
    "identity": Reason("a name that its bearer's certificate does not say"),
    "expired": Reason("a certificate that ran out since its handshake"),
    "denied": Reason("a name on the deny-list"),
    "not-allowed": Reason("a name that is not on the allow-list"),
    "mismatch": Reason("a peer of another run"),
    "stale-boot": Reason("an earlier start of a peer whose later one is connected"),
    "quarantined": Reason("a peer in quarantine"),
    "busy": Reason("more callers at once than this node greets"),
    "slow": Reason("a greeting that did not end in time"),
    "loading": Reason("a caller that came before this node's model was loaded"),
    "self": Reason("this node, which has called itself"),
    # No faults: of two streams one is enough, and a name has to be said before it can be proven.
    "duplicate": Reason("a second stream between the same two nodes"),
    "again": Reason("a caller that must call again, by the name it has learned"),
    "refused": Reason("the peer has refused this node, and said why"),
}
"""By code. Nothing else is ever counted, so that there are never more labels than rows."""

BY_PEER = "refused"
"""The code of a refusal that the peer has made."""

OTHER = "other"
"""What a code that is not in the table is counted as."""

SILENT = frozenset({"duplicate", "again"})
"""What happens all the time between nodes that are well, and is not counted."""


def label(reason: str) -> str:
    """The label under which a refusal is counted."""
    return reason if reason in REASONS else OTHER


def is_offence(reason: str) -> bool:
    """Whether a refusal for this reason is held against its sender."""
    return reason in REASONS and REASONS[reason].offence
