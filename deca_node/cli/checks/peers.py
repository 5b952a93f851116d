"""The check of the peers: each one is called and greeted, and its run is compared with this node's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, Verdict, failed, passed
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.peers_file import read_peers
from deca_node.protocol.agreed.agreement import Agreement, mismatch

if TYPE_CHECKING:
    from deca_node.daemon.diagnosis.probe import Probed
    from deca_node.daemon.diagnosis.reach import Surveyed

PEER_DO: dict[str, tuple[Verdict, str]] = {
    "name": (Verdict.FAILED, "correct the host name, or the name server's entry"),
    "nobody": (Verdict.WARNING, "start that node, or correct the port; a start waits for that node"),
    "silent": (Verdict.FAILED, "check that the machine is up, the address is right, and no firewall is in the way"),
    "untrusted": (Verdict.FAILED, "both sides need certificates of one federation: docs/CERTIFICATES.md"),
    "unwelcome": (Verdict.FAILED, "ask that node's owner to check its lists, its authorities and this certificate"),
    "other-node": (Verdict.FAILED, "correct the name or the address in the peers file"),
    "plaintext": (Verdict.FAILED, "use certificates on both sides, or --insecure on both"),
    "no-node": (Verdict.FAILED, "correct the address; all nodes need the same version of deca-node"),
    "loading": (Verdict.WARNING, "run doctor again later: that node does not know its run yet"),
}
"""The verdict and the advice for each way in which a peer does not answer as it should."""

OUT_OF_REACH = frozenset({"nobody", "silent"})
"""The ways in which a peer does not answer where NAT or a firewall is in the way."""

FROM_THE_MODEL = ("model", "blocks", "classes")
"""Fields of an agreement that follow from the model. They are compared only where an earlier check found them."""


def check_peers(known: Known) -> Iterator[Finding]:
    """Call all peers side by side."""
    from deca_node.daemon.diagnosis.probe import probe_all

    assert known.own is not None and known.security is not None
    targets = _targets(known.settings.node, known.own.name)
    if not targets:
        yield passed("peers", "there is no peer to call")
        return
    done = 0

    def heard(_: Probed) -> None:
        nonlocal done
        done += 1
        known.say(f"peers, {done} of {len(targets)}")

    work = probe_all(targets, known.own.name, known.security, known.seconds_max, heard)
    answers = asyncio.run(work)
    surveyed = _survey(known, answers)
    for probed in answers:
        yield _unreached(probed, surveyed) or _finding(known, probed)


def _survey(known: Known, answers: Sequence[Probed]) -> list[Surveyed]:
    """Where a peer is out of reach: what those that answer say about connections."""
    from deca_node.daemon.diagnosis.reach import survey_all

    assert known.own is not None and known.security is not None
    answering = [(probed.name, probed.address) for probed in answers if probed.offer is not None and probed.name]
    if not answering or not any(probed.kind.value in OUT_OF_REACH for probed in answers):
        return []
    known.say("peers, which of them reach each other")
    return asyncio.run(survey_all(answering, known.own, known.security, known.seconds_max))


def _unreached(probed: Probed, surveyed: Sequence[Surveyed]) -> Finding | None:
    """The finding for a peer that cannot be dialled and with which other members are connected; None for others."""
    from deca_node.daemon.diagnosis.reach import reach_of, sentences

    if probed.kind.value not in OUT_OF_REACH or not probed.name:
        return None
    reach = reach_of(probed.name, surveyed)
    if not reach.linked:
        return None
    told = sentences(probed.name, reach)
    facts = {"address": probed.address, "linked": list(reach.linked), "relays": list(reach.relays)}
    facts |= {"reached_by": list(reach.reached_by), "tried_by": list(reach.tried_by)}
    verdict = Verdict.WARNING if told["do"] else Verdict.OK
    return Finding(f"peer {probed.name}", verdict, f"{probed.address}: {told['says']}", told["do"], facts)


def _targets(node: NodeSettings, own_name: str) -> list[tuple[str, Address]]:
    """The other lines of the peers file, by name, and the addresses in ``join``, without names."""
    path = Path(node.peers).expanduser()
    named = [(peer.name, peer.address) for peer in read_peers(path)] if path.exists() else []
    named = [(name, address) for name, address in named if name != own_name]
    known = {address for _, address in named}
    return named + [("", address) for address in node.seeds if address not in known]


def _finding(known: Known, probed: Probed) -> Finding:
    peer = probed.name or probed.address
    check = f"peer {peer}"
    if probed.clock_ahead_seconds is not None:
        known.clock_offsets[peer] = probed.clock_ahead_seconds
    facts = {
        "address": probed.address,
        "stage": probed.stage.value,
        "kind": probed.kind.value,
        "seconds": probed.seconds,
        "certificate_expires": probed.expires,
    }
    if probed.offer is None:
        verdict, do = PEER_DO[probed.kind.value]
        return Finding(check, verdict, f"{probed.address}: {probed.problem}", do, facts)
    if differs := _difference(known.agreed, probed.offer.agreement, peer):
        return failed(check, f"{probed.address}: {differs}", "use the same run.toml and model on all nodes", **facts)
    at = probed.offer.position
    where = f"at activation {at}" if at >= 0 else "before its first activation"
    says = f"{probed.address}: answered the greeting in {probed.seconds * 1000:.0f} ms, {where}"
    return passed(check, says, **facts)


def _difference(ours: Mapping[str, str], theirs: Agreement, peer: str) -> str | None:
    """The first field that is known here and differs, as a sentence."""
    known = {name: value for name, value in theirs.fields.items() if name in ours or name not in FROM_THE_MODEL}
    return mismatch(Agreement(dict(ours)), Agreement(known), "this node", peer)
