"""The doorman: names compared with certificates, lists that change, and sessions that a changed list ends."""

import contextlib
import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.doorman import SEEN_MAX, Doorman, NameLists, caller_facts, read_list
from deca_node.daemon.settings.peers_file import NAME
from deca_node.protocol.errors import SettingsError, WireError
from tests.daemon.conftest import Federation

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
URI = "spiffe://wards.example/node/south"


class Context:
    """The part of gRPC's context that the doorman uses."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._pem]} if self._pem else {}


def certificate_with(*sans: x509.GeneralName) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW - dt.timedelta(days=2)).not_valid_after(NOW + dt.timedelta(days=2))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return certs.to_pem([builder.sign(key, hashes.SHA256())])


def refusal(pem: bytes, now: dt.datetime = NOW) -> str:
    with pytest.raises(WireError) as caught:
        caller_facts({"x509_pem_cert": [pem]}, now)
    return caught.value.reason


def test_the_bearer_is_read_from_the_certificate() -> None:
    bearer = caller_facts({"x509_pem_cert": [certificate_with(x509.UniformResourceIdentifier(URI))]}, NOW)
    assert bearer.id.uri == URI
    assert len(bearer.fingerprint) == 64


@pytest.mark.parametrize(
    "sans",
    [
        [],
        [x509.DNSName("south")],
        [x509.DNSName(URI)],
        [x509.RFC822Name(URI)],
        [x509.UniformResourceIdentifier("https://wards.example")],
        [x509.UniformResourceIdentifier(URI), x509.UniformResourceIdentifier(f"{URI}2")],
    ],
)
def test_what_only_looks_like_an_identity_is_none(sans: list[x509.GeneralName]) -> None:
    assert refusal(certificate_with(*sans)) == "identity"


def test_dates_are_looked_at_again() -> None:
    """TLS does not verify the certificate of a resumed session again."""
    pem = certificate_with(x509.UniformResourceIdentifier(URI))
    assert refusal(pem, NOW + dt.timedelta(days=3)) == "expired"


@given(st.binary(max_size=200))
def test_anything_else_is_refused(pem: bytes) -> None:
    assert refusal(pem) == "identity"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
def test_a_damaged_certificate_is_an_identity_or_refused(damage: list[tuple[int, int]]) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(SOUTH.decode()))
    for at, byte in damage:
        der[at % len(der)] = byte
    with contextlib.suppress(WireError):
        caller_facts({"x509_pem_cert": [ssl.DER_cert_to_PEM_cert(bytes(der)).encode()]}, NOW)


SOUTH = certificate_with(x509.UniformResourceIdentifier(URI))


def test_no_certificate_is_no_identity() -> None:
    with pytest.raises(WireError, match="carries no certificate"):
        caller_facts({"transport_security_type": [b"insecure"]}, NOW)


# --- lists -------------------------------------------------------------------------------------------


def test_lists_hold_names_and_fingerprints(tmp_path: Path) -> None:
    path = tmp_path / "deny"
    digits = "ab" * 32
    path.write_text(f"# who left\nsouth   # on Monday\n\nsha256:{':'.join([digits[:2].upper()] * 32)}\n[::1]:7001\n")
    listed = read_list(path)
    assert listed.has("south", "")
    assert listed.has("anybody", digits)
    assert listed.has("[::1]:7001", "")
    assert not listed.has("north", "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"north\nno such name\n", "line 2: 'no such name' is neither"),
        (b"sha256:abc\n", "line 1: 'sha256:abc' is not a fingerprint"),
        (b"\xff\xfe\n", "is not UTF-8 text"),
    ],
)
def test_malformed_lists_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "deny").write_bytes(content)
    with pytest.raises(SettingsError, match=words):
        read_list(tmp_path / "deny")


@given(st.binary(max_size=100))
def test_any_file_is_a_list_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-list"
    path.write_bytes(content)
    with contextlib.suppress(SettingsError):
        assert all(NAME.fullmatch(e) or e.startswith("sha256:") for e in read_list(path).entries)


def test_a_list_that_is_missing_is_refused_and_never_taken_for_empty(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        NameLists(None, tmp_path / "nowhere")


def test_a_damaged_list_leaves_the_former_in_force(tmp_path: Path) -> None:
    deny = tmp_path / "deny"
    deny.write_text("south\n")
    lists = NameLists(None, deny)
    deny.write_text("two words\n")
    with pytest.raises(SettingsError):
        lists.reload()
    assert lists.refusal("south") is not None
    assert lists.refusal("north") is None


# --- the doorman -------------------------------------------------------------------------------------


class Bench:
    """A doorman with a deny-list, and the peers that it has made unwelcome."""

    def __init__(self, folder: Path, federation: str | None = "wards.example") -> None:
        self.deny = folder / "deny"
        self.deny.write_text("")
        self.left: list[tuple[str, str]] = []
        lists = NameLists(None, self.deny)
        self.doorman = Doorman(federation, lists, lambda name, why: self.left.append((name, why)))

    def refusal(self, context: Any, claimed: str) -> str:
        with pytest.raises(WireError) as caught:
            self.doorman.verify(context, claimed)
        return caught.value.reason


def test_a_new_list_reaches_those_inside(federation: Federation, tmp_path: Path) -> None:
    files = federation.node("south", federation.begin())
    bench = Bench(tmp_path)
    context = Context(files.cert.read_bytes())
    bench.doorman.verify(context, "south")
    bench.doorman.verify(None, "east")
    bench.deny.write_text(f"sha256:{certs.fingerprint_of(certs.read_certificates(files.cert)[0])}\neast\n")
    assert bench.doorman.reload() == ["south", "east"]
    assert bench.doorman.reload() == []
    assert bench.left == [(name, f"{name} is on this node's deny-list") for name in ("south", "east")]
    assert bench.refusal(context, "south") == "denied"
    assert bench.refusal(None, "east") == "denied"


def test_a_call_back_does_not_wash_off_a_fingerprint(federation: Federation, tmp_path: Path) -> None:
    """The certificate of a peer that was called is not seen. The one of its earlier call still counts."""
    files = federation.node("south", federation.begin())
    bench = Bench(tmp_path)
    bench.doorman.verify(Context(files.cert.read_bytes()), "south")
    bench.doorman.verify(None, "south")
    bench.deny.write_text(f"sha256:{certs.fingerprint_of(certs.read_certificates(files.cert)[0])}\n")
    assert bench.doorman.reload() == ["south"]


def test_names_are_held_against_certificates(federation: Federation, tmp_path: Path) -> None:
    files = federation.node("south", federation.begin())
    bench = Bench(tmp_path)
    assert bench.refusal(Context(files.cert.read_bytes()), "north") == "identity"
    assert bench.refusal(Context(b""), "south") == "identity"
    assert Bench(tmp_path, "beds.example").refusal(Context(files.cert.read_bytes()), "south") == "identity"


def test_in_plaintext_only_the_lists_are_asked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, federation=None)
    bench.deny.write_text("east\n")
    bench.doorman.reload()
    bench.doorman.verify(Context(b""), "south")
    assert bench.refusal(Context(b""), "east") == "denied"


def test_what_is_remembered_has_a_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, federation=None)
    for number in range(SEEN_MAX + 3):
        bench.doorman.verify(Context(b""), f"n{number}")
    bench.deny.write_text("\n".join(f"n{number}" for number in range(SEEN_MAX + 3)))
    assert bench.doorman.reload() == [f"n{number}" for number in range(3, SEEN_MAX + 3)]
