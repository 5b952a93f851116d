"""Checks of the settings, the certificates and the peers file, by the functions that a start calls."""

import dataclasses
from collections.abc import Iterator

from deca_node.cli.checks.known import Known
from deca_node.cli.missing import check_complete
from deca_node.daemon.diagnosis.findings import Finding, passed, warned
from deca_node.daemon.settings.before_start import check_plaintext, check_required, settle
from deca_node.daemon.settings.own_address import find_own_address
from deca_node.protocol.agreed.agreement import settings_fields
from deca_node.protocol.agreed.topology import check_edges

DAY_SECONDS = 86_400.0


def check_settings(known: Known) -> Iterator[Finding]:
    """Read the settings from all their sources."""
    loaded = known.load()
    known.loaded = loaded
    known.agreed = settings_fields(loaded.run)
    check_complete(loaded)
    check_required(loaded.node, "model", "data")
    given = sum(source.where != "default" for source in loaded.sources.values())
    yield passed("settings", f"the run is {loaded.run.run_name}; {given} settings are set, the rest are defaults")


def check_certificates(known: Known) -> Iterator[Finding]:
    """Read the node's certificate and key as a start does."""
    from deca_node.daemon.security.security import Security

    security = Security(known.settings.node)
    known.security = security
    left = security.expires_in_seconds
    if left is None:
        yield _plaintext(known)
        return
    name, file = security.certified_name, security.files.cert if security.files else ""
    facts = {"name": name, "expires_in_seconds": left}
    if warning := security.warning():
        yield warned("certificates", warning, "renew it: deca-node cert request, approve, install", **facts)
    else:
        days = left / DAY_SECONDS
        yield passed("certificates", f"{file} names this node {name} and is valid for {days:.0f} more days", **facts)


def _plaintext(known: Known) -> Finding:
    insecure = known.settings.node.insecure
    says = "encryption is off, and names are not verified"
    if insecure >= 2:
        return warned("certificates", says, "make certificates, unless everyone on the network may read the traffic")
    return passed("certificates", f"{says}; only this machine is reached")


def check_peers_file(known: Known) -> Iterator[Finding]:
    """Find the node's own place among its peers."""
    loaded, security = known.settings, known.security
    certified = security.certified_name if security else ""
    own = find_own_address(loaded.node, certified)
    if not certified:
        check_plaintext(loaded.node.insecure, own.listen.host, own.hosts)
    check_edges(own.expected, loaded.run)
    known.own = own
    known.loaded = dataclasses.replace(loaded, node=settle(loaded.node, own.name, own.listen))
    says = (
        f"this node is {own.name} at {own.advertise}; known nodes: {len(own.expected)}; "
        f"training begins when {own.wait_for} are there"
    )
    yield passed("peers file", says, names=sorted(own.expected))
