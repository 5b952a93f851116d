"""The offers of donors, the checks on them, and the plan of what to fetch.

This node checks every claim that it can check: the blocks and their sizes follow from the run. A donor that claims
otherwise is left out before any memory or disk is used.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from deca_node.daemon.transfer.pieces import START, Item
from deca_node.daemon.transfer.stock import NOWHERE, START_FILE
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.agreed.agreement import Agreement, mismatch
from deca_node.protocol.errors import MismatchError, PeersMissingError, WireError

START_FILES_MAX = 1000


class TransferError(PeersMissingError):
    """No donor can give what this node lacks. The pieces that have come are kept."""


@dataclass(frozen=True)
class Offer:
    """The files that one donor has: block versions and the start model's files, each with the SHA-256 of its copy.

    ``position`` is the activation on which the donor works, ``boundary`` the newest activation before which its
    versions are complete.
    """

    donor: str
    agreement: Agreement
    settings: str
    position: int
    boundary: int
    versions: Mapping[Item, bytes]
    start: Mapping[Item, bytes]


@dataclass(frozen=True)
class Plan:
    """The files to fetch, the most urgent first: either the block versions that make up the model before activation
    ``target``, or the start model's files, of which only the copies in ``copies`` serve."""

    target: int
    items: tuple[Item, ...]
    copies: Mapping[Item, bytes] = field(default_factory=dict)

    def takes(self, item: Item, copy: bytes) -> bool:
        """Whether a donor's copy of an item serves. Any copy of a block version does: see PIECE_BYTES."""
        return item in self.items and self.copies.get(item, copy) == copy


def read_offer(donor: str, message: bytes) -> Offer:
    """The offer in a donor's Description. Raises WireError where it is malformed or contradicts itself."""
    said = pb.Description()
    try:
        said.ParseFromString(message)
    except DecodeError:
        raise WireError("malformed", "it sent a message that is no Description") from None
    offer = Offer(
        donor,
        Agreement(dict(said.agreement)),
        said.settings,
        said.position,
        said.boundary,
        {Item(v.activation, v.block, v.bytes): v.sha256 for v in said.versions},
        {Item(START, f.name, f.bytes): f.sha256 for f in said.start},
    )
    if said.fingerprint != offer.agreement.fingerprint:
        raise WireError("malformed", "it sent a fingerprint that does not belong to its agreement")
    if any(len(sha256) != 32 for sha256 in (*offer.versions.values(), *offer.start.values())):
        raise WireError("malformed", "it sent a SHA-256 of the wrong length")
    return offer


def check_run(offer: Offer, agreement: Agreement) -> None:
    """Raise MismatchError where the donor takes part in another run; the sentence names what differs."""
    difference = mismatch(agreement, offer.agreement, "this node", offer.donor)
    if difference:
        raise MismatchError(difference)


def check_versions(offer: Offer, expected: Mapping[str, int]) -> None:
    """Raise WireError where a block version does not fit the run. ``expected`` gives the bytes of every block's
    delta."""
    for item in offer.versions:
        if item.name not in expected:
            raise WireError("size", f"it offers a block {item.name[:100]!r}, which this run does not have")
        if item.nbytes != expected[item.name]:
            raise WireError(
                "size",
                f"it says that block {item.name} takes {item.nbytes:,} bytes; "
                f"in this run it takes {expected[item.name]:,}",
            )


def check_start(offer: Offer, bytes_max: int) -> None:
    """Raise WireError where a donor's start model has a file that no model has, or more than ``bytes_max`` bytes."""
    strange = [item.name for item in offer.start if not START_FILE.fullmatch(item.name)]
    if strange:
        raise WireError("malformed", f"it offers {strange[0][:100]!r} as part of a model")
    if len(offer.start) > START_FILES_MAX:
        raise WireError("malformed", f"it offers a start model of {len(offer.start)} files")
    if len({item.name for item in offer.start}) < len(offer.start):
        raise WireError("malformed", "it offers a file of the start model twice")
    total = sum(item.nbytes for item in offer.start)
    if total > bytes_max:
        raise WireError("size", f"it offers a start model of {total:,} bytes; the limit is {bytes_max:,}")


def choose(offers: Collection[Offer], at_least: int, have: Mapping[str, int]) -> Plan:
    """Plan to fetch the model as it was before the newest activation that half of the donors have reached.

    That is the newest version of each block before that activation, unless ``have`` (activation by block) is as new. A
    block that no donor names was never visited. Raises TransferError where no donor has reached ``at_least``.
    """
    reached = sorted((o.boundary for o in offers if o.boundary >= at_least), reverse=True)
    if not reached:
        furthest = max((o.boundary for o in offers), default=NOWHERE)
        raise TransferError(
            f"no donor has a checkpoint of activation {at_least} or later"
            + (f"; the furthest is of activation {furthest}" if furthest > NOWHERE else "")
        )
    target = reached[(len(reached) - 1) // 2]
    newest: dict[str, Item] = {}
    for item in (item for offer in offers for item in offer.versions if item.activation < target):
        newest[item.name] = max(item, newest.get(item.name, item))
    wanted = [item for item in newest.values() if item.activation > have.get(item.name, START)]
    # The oldest version belongs to the block that is visited next. After that visit donors no longer have it.
    return Plan(target, tuple(sorted(wanted, key=lambda item: (item.activation, -item.nbytes, item.name))))


def choose_start(offers: Collection[Offer]) -> Plan:
    """Plan to fetch the start model in the copy that most donors have. Raises TransferError where no donor gives
    one."""
    votes = Counter(frozenset(offer.start.items()) for offer in offers if offer.start)
    if not votes:
        raise TransferError("no donor gives the start model; get it from its source, and name its folder with --model")
    copies = dict(votes.most_common(1)[0][0])
    return Plan(START, tuple(sorted(copies, key=lambda item: (-item.nbytes, item.name))), copies)


def copies_of(offer: Offer, distrusted: Collection[tuple[str, Item]]) -> dict[Item, bytes]:
    """Everything that a donor offers, except the items for which it has sent bad pieces."""
    everything = {**offer.versions, **offer.start}
    return {item: copy for item, copy in everything.items() if (offer.donor, item) not in distrusted}
