"""The table of all reasons for refusals: what each reason means, and whether it counts as an offence of the sender.

A refusal has a code and a sentence. The code is a label of ``deca_refusals_total`` and travels in a Refusal; the
sentence is for the logs at both ends. An *offence* also enters the sender's record
(:mod:`deca_node.protocol.quarantine`). A node that keeps the rules never commits an offence, whatever its clock, its
settings or its network are like. A refusal that can happen to an honest node, as for an old certificate, is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """``when`` completes "refused: ..."; ``offence`` says whether the refusal enters the sender's record."""

    when: str
    offence: bool = False


@dataclass(frozen=True)
class Problem:
    """Why there is no stream to a peer: a sentence, and the code of the refusal that caused it (empty if nothing was
    refused)."""

    code: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def _offence(when: str) -> Reason:
    return Reason(when, offence=True)


REASONS: Mapping[str, Reason] = {
    # Bytes and messages of a stream.
    "malformed": _offence("bytes that are no message of the protocol, or a field with an impossible value"),
    "checksum": _offence("data that does not match its checksum"),
    "size": _offence("a frame, chunk or message of a wrong size"),
    "unexpected": _offence("a message at the wrong time"),
    "gap": _offence("a chunk that is not the next one of its frame"),
    "replay": _offence("a frame that was sent before"),
    "flood": _offence("a frame without credit"),
    "forged": _offence("a membership packet in another node's name"),
    "out-of-order": _offence("an update that does not follow the last one"),
    # Contents of frames, as the trainer finds them.
    "bad-length": _offence("codes whose length does not fit the block"),
    "not-finite": _offence("NaN or infinite numbers, or scales that no encoder writes"),
    "bad-codes": _offence("codes that no encoder writes"),
    "bad-places": _offence("positions of elements that are not ascending, or outside of their group"),
    "wild-norm": _offence("a keyframe or update far larger than its neighbours and its history allow"),
    "wild-signal": _offence("a moment signal far larger than its neighbours and its history allow"),
    "unknown-block": Reason("a version of a block that the model does not have"),
    # The caller.
    "version": Reason("another version of the protocol"),
    "address": Reason("a caller that expected another node at this address"),
    "stranger": Reason("a name that belongs to no member"),
    "identity": Reason("a name that is not in the caller's certificate"),
    "expired": Reason("a certificate that has expired since the handshake"),
    "denied": Reason("a name on the deny-list"),
    "not-allowed": Reason("a name that is not on the allow-list"),
    "mismatch": Reason("a peer of another run"),
    "stale-boot": Reason("an earlier start of a peer that has restarted since and is connected"),
    "quarantined": Reason("a peer in quarantine"),
    "busy": Reason("more callers at once than this node can greet"),
    "slow": Reason("a greeting that did not end in time"),
    "loading": Reason("a caller that came before this node's model was loaded"),
    "self": Reason("a call of this node to itself"),
    "no-relay": Reason("a member that asks a node to relay which does not"),
    # Normal events: one of two streams is enough, and a caller names itself before it proves the name.
    "duplicate": Reason("a second stream between the same two nodes"),
    "again": Reason("a caller that must call again under the name that it has just learned"),
    "absent": Reason("a relayed call to a member that does not wait for it at this relay"),
    "refused": Reason("a refusal by the peer, which says why"),
}
"""The reasons by code. Other codes are counted as :data:`OTHER`, so the metric never has more labels than rows."""

BY_PEER = "refused"
"""The code of a refusal by the peer."""

OTHER = "other"
"""The label of codes that are not in the table."""

DISAGREEMENTS = frozenset({"version", "mismatch", "identity", "expired", "denied", "not-allowed"})
"""Reasons for which a peer does not train with this node until one of the two is changed. Other refusals pass."""

SILENT = frozenset({"duplicate", "again", "absent"})
"""Refusals that are normal between healthy nodes. They are not counted."""


def label(reason: str) -> str:
    """The label under which a refusal is counted."""
    return reason if reason in REASONS else OTHER


def is_offence(reason: str) -> bool:
    """Whether a refusal for this reason enters the sender's record."""
    return reason in REASONS and REASONS[reason].offence
