"""Names in certificates, and the files that a start refuses."""

import contextlib
import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import assume, given
from hypothesis import strategies as st

from deca_node.daemon.security import authority
from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.certificates import CertificateError, NodeId, TlsFiles
from deca_node.daemon.settings.peers_file import NAME
from deca_node.protocol.errors import SettingsError
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


@given(federations, names)
def test_a_uri_says_who(federation: str, name: str) -> None:
    node = NodeId(federation, name)
    assert NodeId.parse(node.uri) == node
    assert node.uri.isascii()


@given(federations, names, names)
def test_two_names_are_two_host_names(federation: str, one: str, other: str) -> None:
    """TLS ignores case, and names may hold characters that a host name may not."""
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


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_keys_that_others_can_read_are_refused(federation: Federation, mode: int) -> None:
    files = federation.node("south", federation.begin())
    files.key.chmod(mode)
    with pytest.raises(
        CertificateError, match=rf"can be read by other users \(mode {mode:04o}\); make it private: chmod 600"
    ):
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
    left = certs.read_material(files, NOW).facts.not_after - NOW
    assert left.total_seconds() == pytest.approx(90 * 86400, abs=3600)


def other_pki(
    folder: Path,
    *,
    uri: str = "spiffe://wards.example/node/south",
    dns: str = "south.node.wards.example.deca.internal",
    uses: tuple[x509.ObjectIdentifier, ...] = (),
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None,
    through: bool = False,
) -> TlsFiles:
    """A certificate as another authority might write it, ``through`` an intermediate one if asked for."""
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
        ({"uses": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "must be for servers and clients"),
    ],
)
def test_certificates_that_cannot_serve_are_refused(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    with pytest.raises(CertificateError, match=words):
        certs.read_material(other_pki(tmp_path, **facts), NOW)


@pytest.mark.parametrize("kind", ["ed25519", "short-rsa"])
def test_keys_that_grpc_cannot_use_are_refused(tmp_path: Path, kind: str) -> None:
    """Otherwise handshakes would fail without a reason."""
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 1024)
    with pytest.raises(CertificateError, match="keys are P-256, P-384, or RSA of 2048 bits"):
        certs.read_material(other_pki(tmp_path, key=key), NOW)


def test_errors_are_settings_errors() -> None:
    """They end a start with the exit code of settings that cannot work."""
    assert issubclass(CertificateError, SettingsError)
