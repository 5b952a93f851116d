"""A federation for tests of certificates: an authority in a temporary folder, and the nodes that it serves."""

# First of all, as in a node: grpc reads once, when it is imported, which versions of TLS it may speak.
import deca_node.daemon  # noqa: F401  # isort: skip

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security.certificates import NodeId, TlsFiles, fingerprint_of


@dataclass
class Federation:
    """An authority, and a folder for each node that it serves."""

    folder: Path
    name: str = "wards.example"
    authority_folder: str = "authority"
    clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    """The time at which certificates are made; the real time, where a handshake is to accept them."""

    @property
    def authority(self) -> Path:
        return self.folder / self.authority_folder

    def begin(self, now: dt.datetime | None = None) -> str:
        """Make the authority; returns its fingerprint."""
        return fingerprint_of(authority.init(self.authority, self.name, now or self.clock()))

    def node(self, name: str, fingerprint: str, folder: str = "", days: int = 90) -> TlsFiles:
        """The four steps for one node."""
        now = self.clock()
        place = self.folder / (folder or name)
        asked = enrolment.request(place, NodeId(self.name, name))
        issued = authority.approve(self.authority, asked, place / "approved.crt", now, days, replace=True)
        enrolment.install(place, issued.path, fingerprint, now)
        return enrolment.node_files(place, name)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)
