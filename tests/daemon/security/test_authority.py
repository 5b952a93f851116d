"""The authority: which requests it approves, and which it refuses."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.certificates import CertificateError, NodeId
from deca_node.protocol.errors import StorageError
from tests.daemon.conftest import Federation
from tests.storage.power_cuts import Recorder

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
"""The time in these tests: a fixed one, so that no outcome depends on how long a test waits for its turn."""


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A federation whose certificates are made at :data:`NOW`."""
    return Federation(tmp_path, clock=lambda: NOW)


def test_an_authority_is_never_overwritten(federation: Federation) -> None:
    federation.begin()
    key = (federation.authority / "ca.key").read_bytes()
    with pytest.raises(CertificateError, match="holds an authority already"):
        federation.begin()
    assert (federation.authority / "ca.key").read_bytes() == key


def test_the_same_key_may_be_approved_again(federation: Federation) -> None:
    """A request is signed again if its file was lost, and a name is free again once its certificate has expired."""
    told = federation.begin(NOW - dt.timedelta(days=2))
    asked = enrolment.request(federation.folder / "south", NodeId(federation.name, "south"))
    out = federation.folder / "south.crt"
    authority.approve(federation.authority, asked, out, NOW - dt.timedelta(days=1), days=3)
    authority.approve(federation.authority, asked, out, NOW, days=3)
    other = enrolment.request(federation.folder / "another", NodeId(federation.name, "south"))
    authority.approve(federation.authority, other, out, NOW + dt.timedelta(days=4))
    with pytest.raises(CertificateError, match="is for another key"):
        enrolment.install(federation.folder / "south", out, told, NOW + dt.timedelta(days=4))


def test_no_certificate_outlives_its_authority(federation: Federation) -> None:
    authority.init(federation.authority, federation.name, NOW, days=30)
    asked = enrolment.request(federation.folder / "south", NodeId(federation.name, "south"))
    issued = authority.approve(federation.authority, asked, federation.folder / "south.crt", NOW)
    assert issued.facts.not_after <= NOW + dt.timedelta(days=30)
    with pytest.raises(CertificateError, match="expired on"):
        authority.approve(federation.authority, asked, federation.folder / "south.crt", NOW + dt.timedelta(days=31))


def request_with(path: Path, *sans: x509.GeneralName, key: ec.EllipticCurvePrivateKey | None = None) -> Path:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


SOUTH = x509.UniformResourceIdentifier("spiffe://wards.example/node/south")
EAST = x509.UniformResourceIdentifier("spiffe://wards.example/node/east")


@pytest.mark.parametrize(
    ("sans", "words"),
    [
        ([], "asks for 0 URI names"),
        ([SOUTH, EAST], "asks for 2 URI names"),
        ([SOUTH, x509.DNSName(NodeId("wards.example", "east").dns_name)], "more names than those of"),
        ([SOUTH, x509.IPAddress(ipaddress.ip_address("10.0.0.5"))], "more names than those of"),
        ([x509.UniformResourceIdentifier("spiffe://beds.example/node/south")], "this authority belongs to another"),
        ([x509.UniformResourceIdentifier("spiffe://wards.example/south")], "not of the form"),
    ],
)
def test_requests_for_more_than_one_name_are_refused(
    federation: Federation, sans: list[x509.GeneralName], words: str
) -> None:
    federation.begin()
    asked = request_with(federation.folder / "a.csr", *sans)
    with pytest.raises(CertificateError, match=words):
        authority.approve(federation.authority, asked, federation.folder / "a.crt", NOW)
    assert not (federation.folder / "a.crt").exists()


def test_a_request_must_be_signed_by_its_key(federation: Federation) -> None:
    federation.begin()
    asked = enrolment.request(federation.folder / "south", NodeId(federation.name, "south"))
    der = bytearray(x509.load_pem_x509_csr(asked.read_bytes()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    asked.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST"))
    with pytest.raises(CertificateError, match=r"is not signed by the key|no certificate request"):
        authority.approve(federation.authority, asked, federation.folder / "a.crt", NOW)
    asked.write_text("hello")
    with pytest.raises(CertificateError, match="no certificate request"):
        authority.approve(federation.authority, asked, federation.folder / "a.crt", NOW)


def test_a_folder_that_cannot_be_made_is_a_storage_error(federation: Federation) -> None:
    federation.folder.joinpath("file").write_text("")
    with pytest.raises(StorageError, match="cannot write into"):
        authority.init(federation.folder / "file" / "authority", federation.name, NOW)


def test_a_damaged_book_is_said_to_be_so(federation: Federation) -> None:
    told = federation.begin()
    (federation.authority / "issued.jsonl").write_text('{"name": "south"}\n')
    with pytest.raises(CertificateError, match="line 1 is damaged"):
        federation.node("south", told)


def test_a_crash_while_a_certificate_is_approved_and_installed_costs_a_repetition_at_most(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The book of certificates stays readable, and the same commands succeed; what was done is done for good."""
    home = tmp_path / "home"
    keeper, south = home / "authority", home / "south"
    authority.init(keeper, federation.name, NOW)
    told = f"sha256:{certs.fingerprint_of(certs.read_certificates(keeper / 'ca.crt')[0])}"
    asked = enrolment.request(south, NodeId(federation.name, "south"))
    recorder = Recorder(home)
    with recorder.watching(monkeypatch):
        authority.approve(keeper, asked, home / "south.crt", NOW)
        recorder.say("approved")
        enrolment.install(south, home / "south.crt", told, NOW)
        recorder.say("installed")
    for number, state in enumerate(recorder.states.values()):
        left = state.write(tmp_path / str(number))
        if "approved" not in state.said:
            authority.approve(left / "authority", left / "south" / "south.csr", left / "south.crt", NOW)
        if "installed" not in state.said:
            enrolment.install(left / "south", left / "south.crt", told, NOW)
        pair = enrolment.node_files(left / "south", "south")
        certs.check_key(pair.key.read_bytes(), certs.read_certificates(pair.cert)[0], pair)
