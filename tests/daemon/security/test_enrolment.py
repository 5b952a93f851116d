"""The four steps by which a node gets its certificate, and what a node refuses to install."""

import datetime as dt
import json
import ssl
from pathlib import Path

import pytest

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.certificates import CertificateError, NodeId
from tests.daemon.conftest import Federation

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
"""The time in these tests: a fixed one, so that no outcome depends on how long a test waits for its turn."""


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A federation whose certificates are made at :data:`NOW`."""
    return Federation(tmp_path, clock=lambda: NOW)


def test_four_steps(federation: Federation) -> None:
    files = federation.node("south", federation.begin())
    material = certs.read_material(files, NOW)
    assert material.facts.id == NodeId("wards.example", "south")
    assert "PRIVATE" not in repr(material)
    modes = {path.name: path.stat().st_mode & 0o777 for path in files.cert.parent.iterdir()}
    assert modes["south.key"] == 0o600
    assert "south.request.key" not in modes
    assert (federation.authority / "ca.key").stat().st_mode & 0o777 == 0o600
    assert federation.authority.stat().st_mode & 0o777 == 0o700


def test_no_key_travels(federation: Federation) -> None:
    federation.node("south", federation.begin())
    for travels in ("south.csr", "approved.crt"):
        assert b"PRIVATE" not in (federation.folder / "south" / travels).read_bytes()


def test_openssl_agrees(tmp_path: Path) -> None:
    """Python's own TLS, which verifies strictly and reads the system's clock, accepts the chain and the name."""
    federation = Federation(tmp_path)
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(south.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(north.ca)
    server.load_cert_chain(north.cert, north.key)
    client.load_cert_chain(south.cert, south.key)
    ends = [ssl.MemoryBIO() for _ in range(2)]
    calling = client.wrap_bio(ends[0], ends[1], server_hostname=NodeId("wards.example", "north").dns_name)
    answering = server.wrap_bio(ends[1], ends[0], server_side=True)
    for _ in range(3):
        for end in (calling, answering):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert calling.version() == answering.version() == "TLSv1.3"
    shown = answering.getpeercert() or {}
    assert ("URI", "spiffe://wards.example/node/south") in shown["subjectAltName"]


def test_asking_again_leaves_the_key_in_use(federation: Federation) -> None:
    told = federation.begin()
    files = federation.node("south", told)
    asked = enrolment.request(files.cert.parent, NodeId(federation.name, "south"))
    assert certs.read_material(files, NOW).facts.id.name == "south"
    with pytest.raises(CertificateError, match="give --replace"):
        authority.approve(federation.authority, asked, asked.with_suffix(".new"), NOW)
    authority.approve(federation.authority, asked, asked.with_suffix(".new"), NOW, replace=True)
    enrolment.install(files.cert.parent, asked.with_suffix(".new"), told, NOW)
    assert certs.read_material(files, NOW).facts.id.name == "south"
    book = [json.loads(line) for line in (federation.authority / "issued.jsonl").read_text().splitlines()]
    assert [record["name"] for record in book] == ["south", "south"]
    assert len({record["serial"] for record in book}) == 2


def test_an_exchanged_certificate_is_not_installed(federation: Federation) -> None:
    """An attacker put an authority of their own into the file. The fingerprint shows it."""
    told = federation.begin()
    federation.authority_folder = "impostor"
    federation.begin()
    asked = enrolment.request(federation.folder / "south", NodeId(federation.name, "south"))
    issued = authority.approve(federation.authority, asked, federation.folder / "south.crt", NOW)
    with pytest.raises(CertificateError, match="the file may have been replaced on its way"):
        enrolment.install(federation.folder / "south", issued.path, told, NOW)
    with pytest.raises(CertificateError, match="the file may have been replaced on its way"):
        enrolment.install(federation.folder / "south", issued.path, issued.facts.fingerprint, NOW)
    assert sorted(path.name for path in (federation.folder / "south").iterdir()) == ["south.csr", "south.request.key"]


def test_an_authority_that_only_came_along_vouches_for_nothing(federation: Federation) -> None:
    """The file holds the right authority's certificate, but another authority has signed."""
    told = federation.begin()
    rightful = certs.read_certificates(federation.authority / "ca.crt")[0]
    federation.authority_folder = "impostor"
    federation.begin()
    asked = enrolment.request(federation.folder / "south", NodeId(federation.name, "south"))
    issued = authority.approve(federation.authority, asked, federation.folder / "south.crt", NOW)
    leaf = certs.read_certificates(issued.path)[0]
    issued.path.write_bytes(certs.to_pem([leaf, rightful]))
    with pytest.raises(CertificateError, match="was not issued by an authority"):
        enrolment.install(federation.folder / "south", issued.path, told, NOW)


def test_a_certificate_without_a_key_here_is_refused(federation: Federation) -> None:
    told = federation.begin()
    federation.node("south", told)
    with pytest.raises(CertificateError, match="`deca-node cert request south` comes first"):
        enrolment.install(federation.folder / "elsewhere", federation.folder / "south" / "approved.crt", told, NOW)


def test_a_start_finds_what_was_installed(federation: Federation) -> None:
    told = federation.begin()
    files = federation.node("south", told, folder="certs")
    enrolment.request(files.cert.parent, NodeId(federation.name, "south"))
    assert enrolment.installed(files.cert.parent, "") == enrolment.installed(files.cert.parent, "south") == files
    assert enrolment.installed(files.cert.parent, "north") is None
    assert enrolment.installed(federation.folder / "nowhere", "") is None
    federation.node("north", told, folder="certs")
    with pytest.raises(CertificateError, match="has the certificates of north, south; say which node with --name"):
        enrolment.installed(files.cert.parent, "")


def test_the_way_to_a_certificate_names_the_verbs() -> None:
    for verb in ("init", "request south", "approve south.csr", "install south.crt"):
        assert f"deca-node cert {verb}" in enrolment.how_to_begin("south")
