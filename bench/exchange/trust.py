"""Certificates for the parties of an encrypted exchange, from an authority made for it."""

import datetime as dt
from pathlib import Path

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security.certificates import NodeId, TlsFiles, fingerprint_of

FEDERATION = "bench.example"


def certify(folder: Path, names: list[str]) -> None:
    """Make an authority and, for each name, a key and a certificate, all in ``folder``."""
    now = dt.datetime.now(dt.UTC)
    fingerprint = fingerprint_of(authority.init(folder / "authority", FEDERATION, now))
    for name in names:
        asked = enrolment.request(folder / name, NodeId(FEDERATION, name))
        issued = authority.approve(folder / "authority", asked, folder / name / "approved.crt", now)
        enrolment.install(folder / name, issued.path, fingerprint, now)


def files_of(folder: Path, name: str) -> TlsFiles:
    """The paths of a party's files."""
    return enrolment.node_files(folder / name, name)
