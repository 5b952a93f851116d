"""Reads and checks certificates and keys. A certificate is a node's passport: its name, its issuer and its dates.

The name is one URI, ``spiffe://FEDERATION/node/NAME``, where NAME is the one in the peers file. The certificate also
holds a DNS name made from the same two words. That name is never resolved: TLS compares only host names, so with it a
caller makes sure that the node that answers is the one it has called, whatever the address. A second DNS name, without
NAME, is for the first call to an address whose node is not known yet.

Certificates are made by :mod:`deca_node.daemon.security.authority`. Those of any other authority serve as well if they
hold these names.
"""

import datetime as dt
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from deca_node.daemon.settings.peers_file import NAME
from deca_node.protocol.errors import SettingsError

FEDERATION = re.compile(r"(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
DNS_SUFFIX = "deca.internal"
RSA_BITS_MIN = 2048
CHAIN_LENGTH_MAX = 8
FILE_BYTES_MAX = 1 << 20
"""Longer files are read only up to here: no certificate or key is longer, but a wrong path may lead to any file."""
WARN_DAYS = 14
"""A certificate that expires within this many days causes a warning."""

MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""The parser's errors for bytes that are no usable certificate. Some are raised when a part is first read."""
_PLAIN_LABEL = re.compile(r"(?!h-)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class CertificateError(SettingsError):
    """A certificate, a key or a list of authorities is missing, malformed, unfit, or readable by others."""


@dataclass(frozen=True)
class NodeId:
    """The name of a node in a certificate: its federation, and its name in the peers file."""

    federation: str
    name: str

    def __post_init__(self) -> None:
        if not FEDERATION.fullmatch(self.federation):
            raise CertificateError(
                f"{self.federation!r} cannot name a federation; use lower-case letters, digits, dots and hyphens, "
                "and at most 63 in all"
            )
        if not NAME.fullmatch(self.name):
            raise CertificateError(f"{self.name!r} is not a name that a peers file could hold")

    @property
    def uri(self) -> str:
        """``spiffe://FEDERATION/node/NAME``. Characters that a URI may not hold are percent-encoded."""
        return f"spiffe://{self.federation}/node/{quote(self.name, safe='')}"

    @property
    def dns_name(self) -> str:
        """``NAME.node.FEDERATION.deca.internal``, with a hash instead of NAME where NAME is no lower-case host name.

        TLS ignores case and accepts no colons, and a label has at most 63 characters. Two names never share a label.
        """
        label = self.name
        if not _PLAIN_LABEL.fullmatch(label):
            label = f"h-{hashlib.sha256(label.encode()).hexdigest()[:40]}"
        return f"{label}.{self.any_dns_name}"

    @property
    def any_dns_name(self) -> str:
        """The DNS name that every node of the federation holds, for calls to an address whose node is not known yet."""
        return f"node.{self.federation}.{DNS_SUFFIX}"

    @classmethod
    def parse(cls, uri: str) -> "NodeId":
        """The inverse of ``uri``. Raises CertificateError for any text that ``uri`` does not give."""
        found = re.fullmatch(r"spiffe://([^/]*)/node/([^/]*)", uri)
        if found is None:
            raise CertificateError(f"{uri!r} is not of the form spiffe://FEDERATION/node/NAME")
        node = cls(found[1], unquote(found[2]))
        if node.uri != uri:
            raise CertificateError(f"{uri!r} is not the usual spelling of {node.uri!r}")
        return node


@dataclass(frozen=True)
class TlsFiles:
    """The paths of a node's certificate (with intermediates, if any), its key and its authorities. All are PEM
    files."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True)
class Facts:
    """The facts in a node's certificate. ``fingerprint`` is the SHA-256 of its DER form, in hexadecimal."""

    id: NodeId
    not_before: dt.datetime
    not_after: dt.datetime
    fingerprint: str


@dataclass(frozen=True)
class Material:
    """The certificate chain, key and authorities for TLS, as PEM. They were read from files and fit together."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    facts: Facts


# --- reading -----------------------------------------------------------------------------------------


def read_material(files: TlsFiles, now: dt.datetime) -> Material:
    """Read the three files and check that TLS will accept them. Raises CertificateError."""
    chain = read_certificates(files.cert)
    leaf = chain[0]
    key = read_secret(files.key)
    check_key(key, leaf, files)
    facts = facts_of(leaf, str(files.cert))
    check_use(leaf, facts.id, str(files.cert))
    check_dates(leaf, now, str(files.cert))
    authorities = read_certificates(files.ca)
    check_chain(chain, authorities, now, files)
    return Material(to_pem(chain), key, to_pem(authorities), facts)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, at least one. Raises CertificateError."""
    try:
        with path.open("rb") as file:
            return parse_certificates(file.read(FILE_BYTES_MAX), str(path))
    except OSError as error:
        raise CertificateError(f"the certificate {path} cannot be read: {error.strerror}") from error


def parse_certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    """All certificates of a PEM text, at least one. Raises CertificateError naming ``where``."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except MALFORMED as error:
        raise CertificateError(f"{where} holds no certificate in PEM form") from error


def read_secret(path: Path) -> bytes:
    """The content of a key file. Raises CertificateError where other users can read the file."""
    try:
        with path.open("rb") as file:
            # The status is that of the open file: the path may lead to another file a moment later.
            status = os.fstat(file.fileno())
            content = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise CertificateError(f"the key {path} cannot be read: {error.strerror}") from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        raise CertificateError(
            f"the key {path} can be read by other users (mode {mode:04o}); make it private: chmod 600 {path}"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise CertificateError(f"the key {path} belongs to another user, who can read it; use a key of your own")
    return content


def facts_of(leaf: x509.Certificate, where: str) -> Facts:
    """The facts in a node's certificate. Raises CertificateError where it names no node, or several."""
    return Facts(
        id=_only_id(names_of(leaf, x509.UniformResourceIdentifier, where), where),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        fingerprint=fingerprint_of(leaf),
    )


def names_of(
    bearer: x509.Certificate | x509.CertificateSigningRequest,
    kind: type[x509.UniformResourceIdentifier] | type[x509.DNSName],
    where: str,
) -> list[str]:
    """The subject alternative names of one kind. Raises CertificateError where they are malformed."""
    try:
        names = bearer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except MALFORMED as error:
        raise CertificateError(f"{where} has malformed extensions: {error}") from error
    return [name.value for name in names if isinstance(name, kind)]


def _only_id(uris: Sequence[str], where: str) -> NodeId:
    # With two names one certificate could be two nodes. SPIFFE forbids it as well.
    if len(uris) != 1:
        raise CertificateError(
            f"{where} carries {len(uris)} URI names where there must be one, spiffe://FEDERATION/node/NAME"
        )
    return NodeId.parse(uris[0])


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def parse_fingerprint(text: str) -> str:
    """``sha256:HEX``, with or without the prefix, colons and capitals. Raises CertificateError."""
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise CertificateError(f"{text!r} is not a fingerprint; it is sha256: and 64 hexadecimal digits")
    return digits


def to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """The certificates as one PEM text."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


# --- checking ----------------------------------------------------------------------------------------


def check_key(key: bytes, leaf: x509.Certificate, files: TlsFiles) -> None:
    """Raise CertificateError where the key does not belong to the certificate, or where gRPC's TLS cannot use it."""
    try:
        private = serialization.load_pem_private_key(key, None)
    except TypeError as error:
        raise CertificateError(
            f"the key {files.key} has a passphrase, which a node cannot ask for; store the key without one"
        ) from error
    except MALFORMED as error:
        raise CertificateError(f"{files.key} holds no private key in PEM form") from error
    if private.public_key() != _public_key(leaf, files):
        raise CertificateError(f"the key {files.key} does not belong to the certificate {files.cert}")
    check_algorithm(private.public_key(), str(files.key))


def _public_key(leaf: x509.Certificate, files: TlsFiles) -> object:
    try:
        return leaf.public_key()
    except MALFORMED as error:
        raise CertificateError(f"{files.cert} has a key of an unknown kind: {error}") from error


def check_algorithm(key: object, where: str) -> None:
    """Raise CertificateError for a weak key, or one that gRPC's TLS cannot use, such as Ed25519."""
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    if not curve and not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN):
        raise CertificateError(f"{where}: keys are P-256, P-384, or RSA of {RSA_BITS_MIN} bits or more")


def check_use(leaf: x509.Certificate, node: NodeId, where: str) -> None:
    """Raise CertificateError where a certificate does not serve both callers and servers, or lacks the node's DNS
    name."""
    dns_names = [name.lower() for name in names_of(leaf, x509.DNSName, where)]
    if node.dns_name not in dns_names:
        raise CertificateError(f"{where} lacks the DNS name {node.dns_name}, by which peers recognise {node.name}")
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    missing = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} - set(uses)
    if missing and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in uses:
        raise CertificateError(f"{where} must be for servers and clients (extended key usage), since a node is both")


def check_dates(certificate: x509.Certificate, now: dt.datetime, where: str) -> None:
    """Raise CertificateError where a certificate is not valid at ``now``."""
    if now < certificate.not_valid_before_utc:
        raise CertificateError(f"{where} is not valid before {stamp(certificate.not_valid_before_utc)}")
    if now > certificate.not_valid_after_utc:
        raise CertificateError(f"{where} expired on {stamp(certificate.not_valid_after_utc)}")


def check_chain(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: dt.datetime, files: TlsFiles
) -> None:
    """Raise CertificateError where none of this node's authorities has issued the chain. Peers trust the same ones."""
    last = chain[0]
    for _ in range(CHAIN_LENGTH_MAX):
        root = next((one for one in authorities if vouches(one, last)), None)
        if root is not None:
            check_dates(root, now, str(files.ca))
            return
        step = next((one for one in chain[1:] if vouches(one, last)), None)
        if step is None:
            break
        check_dates(step, now, str(files.cert))
        last = step
    raise CertificateError(f"{files.cert} was not issued by an authority in {files.ca}")


def vouches(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether ``issuer`` is an authority that signed ``certificate``."""
    try:
        certificate.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*MALFORMED, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False


def stamp(moment: dt.datetime) -> str:
    """A date for people: ``2026-11-22 20:30 UTC``."""
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
