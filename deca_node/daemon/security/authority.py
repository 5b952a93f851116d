"""A federation's own certificate authority, for parties that have none. It takes four steps, and no key ever travels.

::

    authority                          node (deca_node.daemon.security.enrolment)
    init      -> ca.key, ca.crt        request -> NAME.request.key, NAME.csr
    approve   NAME.csr -> NAME.crt     install NAME.crt -> NAME.key, NAME.crt, ca.crt

Only NAME.csr and NAME.crt travel, and both are public. An attacker on the way could replace them. Therefore the
authority's fingerprint is told over another channel, such as the telephone, and ``install`` compares it. The file
``issued.jsonl`` records which name was given to which key.
"""

import contextlib
import datetime as dt
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.certificates import CertificateError, Facts, NodeId, TlsFiles
from deca_node.protocol.errors import StorageError
from deca_node.storage.durable import sync_folder, write_file
from deca_node.storage.jsons import UNFIT, parse

AUTHORITY_DAYS = 3650
NODE_DAYS = 90
SKEW = dt.timedelta(minutes=5)
"""New certificates are valid from this long before now, because the clocks of the parties differ."""

PRIVATE, PUBLIC = 0o600, 0o644


@dataclass(frozen=True)
class Issued:
    """A certificate that the authority has signed: its path, its facts, and the authority's fingerprint."""

    path: Path
    facts: Facts
    authority: str


# --- the authority's side ----------------------------------------------------------------------------


def init(folder: Path, federation: str, now: dt.datetime, days: int = AUTHORITY_DAYS) -> x509.Certificate:
    """Make a federation's authority: ``ca.key`` and ``ca.crt``. Raises CertificateError where there is one."""
    NodeId(federation, "any")
    key = ec.generate_private_key(ec.SECP256R1())
    name = subject(f"{federation} authority")
    builder = _builder(name, name, key.public_key(), now, now + dt.timedelta(days=days))
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_names(x509.UniformResourceIdentifier(f"spiffe://{federation}")), critical=False)
        .sign(key, hashes.SHA256())
    )
    with saying(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write(folder / "ca.key", key_pem(key), PRIVATE, overwrite=False)
        except FileExistsError:
            raise CertificateError(
                f"{folder} holds an authority already; choose another folder for a new one"
            ) from None
        write(folder / "ca.crt", certs.to_pem([certificate]), PUBLIC)
    return certificate


def approve(
    folder: Path, request: Path, out: Path, now: dt.datetime, days: int = NODE_DAYS, replace: bool = False
) -> Issued:
    """Sign a node's request. ``out`` then holds the node's certificate, followed by the authority's.

    A name belongs to one key. ``replace`` says that the same node asks again, with another key. Raises CertificateError
    where the request is malformed, or asks for something that this authority does not give.
    """
    authority = certs.read_certificates(folder / "ca.crt")[0]
    certs.check_dates(authority, now, str(folder / "ca.crt"))
    key = _authority_key(folder, authority)
    asked = _read_request(request)
    node = _asked_id(asked, request)
    if f"spiffe://{node.federation}" not in certs.names_of(authority, x509.UniformResourceIdentifier, str(folder)):
        raise CertificateError(
            f"{request} asks for the federation {node.federation!r}, and this authority belongs to another"
        )
    with saying(folder):
        _refuse_taken(folder, node, asked.public_key(), now, request, replace)
        until = min(now + dt.timedelta(days=days), authority.not_valid_after_utc)
        certificate = _sign(key, authority, asked, node, now, until)
        _note(folder, node, certificate, now)
        write(out, certs.to_pem([certificate, authority]), PUBLIC)
    return Issued(out, certs.facts_of(certificate, str(out)), certs.fingerprint_of(authority))


def _sign(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    asked: x509.CertificateSigningRequest,
    node: NodeId,
    now: dt.datetime,
    until: dt.datetime,
) -> x509.Certificate:
    """The certificate takes only the key and the name from the request."""
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issuer_key = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(subject(node.name), authority.subject, asked.public_key(), now, until)
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(uses, critical=False)
        .add_extension(node_names(node), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False)
        .sign(key, hashes.SHA256())
    )


def _authority_key(folder: Path, authority: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    content = certs.read_secret(folder / "ca.key")
    certs.check_key(content, authority, TlsFiles(folder / "ca.crt", folder / "ca.key", folder / "ca.crt"))
    key = serialization.load_pem_private_key(content, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{folder} is not an authority that `cert init` has made")
    return key


def _read_request(path: Path) -> x509.CertificateSigningRequest:
    try:
        with path.open("rb") as file:
            asked = x509.load_pem_x509_csr(file.read(certs.FILE_BYTES_MAX))
        signed = asked.is_signature_valid
        certs.check_algorithm(asked.public_key(), str(path))
    except OSError as error:
        raise CertificateError(f"the request {path} cannot be read: {error.strerror}") from error
    except certs.MALFORMED as error:
        raise CertificateError(f"{path} holds no certificate request in PEM form") from error
    if not signed:
        raise CertificateError(f"{path} is not signed by the key it asks a certificate for")
    return asked


def _asked_id(asked: x509.CertificateSigningRequest, path: Path) -> NodeId:
    uris = certs.names_of(asked, x509.UniformResourceIdentifier, str(path))
    if len(uris) != 1:
        raise CertificateError(f"{path} asks for {len(uris)} URI names; a node has exactly one")
    node = NodeId.parse(uris[0])
    names = list(asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if not set(names) <= set(node_names(node)):
        raise CertificateError(f"{path} asks for more names than those of {node.uri}")
    return node


def _refuse_taken(
    folder: Path, node: NodeId, key: CertificatePublicKeyTypes, now: dt.datetime, request: Path, replace: bool
) -> None:
    for record in _records(folder):
        valid = _moment(record["not_after"]) > now
        if record["name"] == node.name and valid and record["key"] != _key_digest(key) and not replace:
            raise CertificateError(
                f"{node.name} has a certificate for another key, valid until {record['not_after']}; make sure that "
                f"{request} is from {node.name}, and give --replace"
            )


def _records(folder: Path) -> Iterator[dict[str, str]]:
    with contextlib.suppress(FileNotFoundError):
        for number, line in enumerate((folder / "issued.jsonl").read_bytes().splitlines(), start=1):
            try:
                record: dict[str, str] = parse(line)
                _moment(record["not_after"]), record["name"], record["key"]
            except UNFIT as error:
                raise CertificateError(f"{folder}/issued.jsonl line {number} is damaged") from error
            yield record


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


def _note(folder: Path, node: NodeId, certificate: x509.Certificate, now: dt.datetime) -> None:
    record = {
        "name": node.name,
        "issued": now.isoformat(timespec="seconds"),
        "not_after": certificate.not_valid_after_utc.isoformat(timespec="seconds"),
        "serial": f"{certificate.serial_number:x}",
        "fingerprint": certs.fingerprint_of(certificate),
        "key": _key_digest(certificate.public_key()),
    }
    book = folder / "issued.jsonl"
    # Written anew each time: half a line that a crash left would make the whole book unreadable.
    earlier = book.read_bytes() if book.exists() else b""
    write_file(book, [earlier, (json.dumps(record) + "\n").encode()])


# --- parts -------------------------------------------------------------------------------------------


def write(path: Path, content: bytes, mode: int, overwrite: bool = True) -> None:
    """Write a file whole or not at all, and durably. No other user can read a private file, not even for a moment.

    Raises FileExistsError where the file exists and ``overwrite`` is false.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        if overwrite:
            aside.replace(path)
        else:
            path.hardlink_to(aside)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def saying(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write into {folder}: {error.strerror}") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, now: dt.datetime, until: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def node_names(node: NodeId) -> x509.SubjectAlternativeName:
    """The names in a node's certificate."""
    return _names(
        x509.UniformResourceIdentifier(node.uri), x509.DNSName(node.dns_name), x509.DNSName(node.any_dns_name)
    )


def subject(text: str) -> x509.Name:
    """A common name, for people only. X.509 allows 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM, without a passphrase. File permissions protect it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_digest(key: CertificatePublicKeyTypes) -> str:
    form = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(form).hexdigest()
