"""Names in certificates, the four steps by which a node gets one, and what is refused on the way and at the start."""

import contextlib
import datetime as dt
import ipaddress
import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import assume, given
from hypothesis import strategies as st

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.certificates import CertificateError, NodeId, TlsFiles
from deca_node.daemon.settings.peers_file import NAME
from deca_node.protocol.errors import SettingsError, StorageError
from tests.daemon.conftest import Federation

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
"""The time in these tests: a fixed one, so that no outcome depends on how long a test waits for its turn."""

names = st.from_regex(NAME, fullmatch=True)
federations = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?(\.[a-z0-9]{1,8}){0,3}", fullmatch=True)

HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A federation whose certificates are made at :data:`NOW`."""
    return Federation(tmp_path, clock=lambda: NOW)


# --- names -------------------------------------------------------------------------------------------


@given(federations, names)
def test_a_uri_says_who(federation: str, name: str) -> None:
    node = NodeId(federation, name)
    assert NodeId.parse(node.uri) == node
    assert node.uri.isascii()


@given(federations, names, names)
def test_two_names_are_two_host_names(federation: str, one: str, other: str) -> None:
    """In any case, for TLS compares without it, and whatever characters the names have."""
    assume(one != other)
    dns_names = {NodeId(federation, name).dns_name.lower() for name in (one, other)}
    assert len(dns_names) == 2
    assert all(HOST_NAME.fullmatch(name) for name in dns_names)


def test_plain_names_stay_readable() -> None:
    assert NodeId("wards.example", "north-1").dns_name == "north-1.node.wards.example.deca.internal"
    assert NodeId("wards.example", "north-1").uri == "spiffe://wards.example/node/north-1"
    assert NodeId("wards.example", "10.0.0.5:7001").uri == "spiffe://wards.example/node/10.0.0.5%3A7001"


@pytest.mark.parametrize(
    "uri",
    [
        "https://wards.example/node/north",
        "spiffe://wards.example/north",
        "spiffe://wards.example/node/north/more",
        "spiffe://wards.example/node/",
        "spiffe://wards.example/node/%6eorth",
        "spiffe://wards.example/node/north\n",
        "spiffe://Wards.example/node/north",
        "spiffe:///node/north",
        "spiffe://wards.example/node/..",
        "spiffe://wards.example/node/a%2fb",
    ],
)
def test_other_uris_are_nobody(uri: str) -> None:
    with pytest.raises(CertificateError):
        NodeId.parse(uri)


@given(st.text())
def test_any_text_is_a_node_or_refused(uri: str) -> None:
    with contextlib.suppress(CertificateError):
        assert NodeId.parse(uri).uri == uri


@pytest.mark.parametrize("spelling", [str, str.upper, lambda digits: ":".join(re.findall("..", digits))])
def test_fingerprints_may_be_spelled(spelling: Callable[[str], str]) -> None:
    digits = "0123456789abcdef" * 4
    assert certs.parse_fingerprint(f" sha256:{spelling(digits)} ") == digits
    assert certs.parse_fingerprint(spelling(digits)) == digits
    with pytest.raises(CertificateError, match="is not a fingerprint"):
        certs.parse_fingerprint(spelling(digits)[:-1])


# --- the four steps ----------------------------------------------------------------------------------


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


def test_an_authority_is_never_overwritten(federation: Federation) -> None:
    federation.begin()
    key = (federation.authority / "ca.key").read_bytes()
    with pytest.raises(CertificateError, match="holds an authority already"):
        federation.begin()
    assert (federation.authority / "ca.key").read_bytes() == key


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


def test_the_same_key_may_be_approved_again(federation: Federation) -> None:
    """A file that was lost on the way is signed once more, and a name is free again when its certificate is over."""
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
        ([x509.UniformResourceIdentifier("spiffe://beds.example/node/south")], "this authority is another's"),
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


def test_an_exchanged_certificate_is_not_installed(federation: Federation) -> None:
    """Somebody on the way put an authority of their own into the file; the fingerprint tells."""
    told = federation.begin()
    federation.authority_folder = "impostor"
    federation.begin()
    asked = enrolment.request(federation.folder / "south", NodeId(federation.name, "south"))
    issued = authority.approve(federation.authority, asked, federation.folder / "south.crt", NOW)
    with pytest.raises(CertificateError, match="somebody may have exchanged it"):
        enrolment.install(federation.folder / "south", issued.path, told, NOW)
    with pytest.raises(CertificateError, match="somebody may have exchanged it"):
        enrolment.install(federation.folder / "south", issued.path, issued.facts.fingerprint, NOW)
    assert sorted(path.name for path in (federation.folder / "south").iterdir()) == ["south.csr", "south.request.key"]


def test_an_authority_that_only_came_along_vouches_for_nothing(federation: Federation) -> None:
    """The right authority's certificate is in the file, but another one signed."""
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


def test_a_folder_that_cannot_be_made_is_a_storage_error(federation: Federation) -> None:
    federation.folder.joinpath("file").write_text("")
    with pytest.raises(StorageError, match="cannot write into"):
        authority.init(federation.folder / "file" / "authority", federation.name, NOW)


def test_a_damaged_book_is_said_to_be_so(federation: Federation) -> None:
    told = federation.begin()
    (federation.authority / "issued.jsonl").write_text('{"name": "south"}\n')
    with pytest.raises(CertificateError, match="line 1 is damaged"):
        federation.node("south", told)


# --- what a start refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_keys_that_others_can_read_are_refused(federation: Federation, mode: int) -> None:
    files = federation.node("south", federation.begin())
    files.key.chmod(mode)
    with pytest.raises(CertificateError, match=rf"open to others \(mode {mode:04o}\); make it private: chmod 600"):
        certs.read_material(files, NOW)


def test_missing_and_foolish_files(federation: Federation, tmp_path: Path) -> None:
    files = federation.node("south", federation.begin())
    text = tmp_path / "text"
    text.write_text("hello\n")
    text.chmod(0o600)
    nowhere = tmp_path / "nowhere"
    for wrong, words in (
        (TlsFiles(nowhere, files.key, files.ca), "the certificate .*nowhere cannot be read: No such file"),
        (TlsFiles(files.cert, nowhere, files.ca), "the key .*nowhere cannot be read"),
        (TlsFiles(files.cert, files.key, nowhere), "nowhere cannot be read"),
        (TlsFiles(text, files.key, files.ca), "holds no certificate in PEM form"),
        (TlsFiles(files.cert, text, files.ca), "holds no private key in PEM form"),
        (TlsFiles(files.cert, files.key, text), "holds no certificate in PEM form"),
        (TlsFiles(files.cert, files.key, files.cert), "was not issued by an authority in"),
    ):
        with pytest.raises(CertificateError, match=words):
            certs.read_material(wrong, NOW)


def test_dates_are_kept(federation: Federation) -> None:
    files = federation.node("south", federation.begin())
    with pytest.raises(CertificateError, match="is not valid before"):
        certs.read_material(files, NOW - dt.timedelta(days=1))
    with pytest.raises(CertificateError, match=r"south\.crt expired on"):
        certs.read_material(files, NOW + dt.timedelta(days=91))
    assert certs.expires_in_seconds(files, NOW) == pytest.approx(90 * 86400, abs=3600)
    assert certs.expires_in_seconds(files, NOW + dt.timedelta(days=91)) < 0


def other_pki(
    folder: Path,
    *,
    uri: str = "spiffe://wards.example/node/south",
    dns: str = "south.node.wards.example.deca.internal",
    uses: tuple[x509.ObjectIdentifier, ...] = (),
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None,
    through: bool = False,
) -> TlsFiles:
    """A certificate as some other authority might write it, perhaps through an intermediate one."""
    key = key or rsa.generate_private_key(65537, 2048)

    def certificate(name: str, public: object, issuer: str) -> x509.CertificateBuilder:
        texts = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
        return (
            x509.CertificateBuilder(texts[1], texts[0], public)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=1))
            .not_valid_after(NOW + dt.timedelta(days=1))
        )

    constraints = x509.BasicConstraints(ca=True, path_length=None)
    root_key, between_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    root = certificate("root", root_key.public_key(), "root").add_extension(constraints, True)
    between = certificate("between", between_key.public_key(), "root").add_extension(constraints, True)
    sans = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(dns)])
    leaf = certificate("south", key.public_key(), "between" if through else "root").add_extension(sans, False)
    if uses:
        leaf = leaf.add_extension(x509.ExtendedKeyUsage(uses), False)
    chain = [leaf.sign(between_key if through else root_key, hashes.SHA256())]
    chain += [between.sign(root_key, hashes.SHA256())] if through else []
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    files.cert.write_bytes(certs.to_pem(chain))
    files.ca.write_bytes(certs.to_pem([root.sign(root_key, hashes.SHA256())]))
    authority.write(files.key, authority.key_pem(key), 0o600)  # type: ignore[arg-type]
    return files


@pytest.mark.parametrize("through", [False, True])
def test_other_authorities_serve_as_well(tmp_path: Path, through: bool) -> None:
    material = certs.read_material(other_pki(tmp_path, through=through), NOW)
    assert material.facts.id == NodeId("wards.example", "south")
    assert material.chain.count(b"BEGIN") == 1 + through


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"uri": "https://wards.example/south"}, "is not of the form"),
        ({"dns": "south.wards.example"}, "lacks the DNS name south.node.wards.example.deca.internal"),
        ({"uses": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "must be for servers and for clients"),
    ],
)
def test_certificates_that_cannot_serve_are_refused(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    with pytest.raises(CertificateError, match=words):
        certs.read_material(other_pki(tmp_path, **facts), NOW)


@pytest.mark.parametrize("kind", ["ed25519", "short-rsa"])
def test_keys_that_grpc_cannot_use_are_refused(tmp_path: Path, kind: str) -> None:
    """Rather than by a handshake that fails without a word."""
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 1024)
    with pytest.raises(CertificateError, match="keys are P-256, P-384, or RSA of 2048 bits"):
        certs.read_material(other_pki(tmp_path, key=key), NOW)


def test_errors_are_settings_errors() -> None:
    """They end a start with the exit code of settings that cannot work."""
    assert issubclass(CertificateError, SettingsError)
