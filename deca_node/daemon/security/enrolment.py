"""How a node gets its certificate: it asks with a key that it keeps, and installs the certificate that comes back.

The file that comes back may have been replaced on its way. So nothing in it is trusted until the authority's
fingerprint, which was told over another channel, is found in it.
"""

import contextlib
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.authority import PRIVATE, PUBLIC, key_pem, node_names, saying, subject, write
from deca_node.daemon.security.certificates import CertificateError, Facts, NodeId, TlsFiles


def node_files(folder: Path, name: str) -> TlsFiles:
    """The paths at which ``install`` puts a node's files, and at which ``start`` looks for them."""
    return TlsFiles(folder / f"{name}.crt", folder / f"{name}.key", folder / "ca.crt")


def installed(folder: Path, name: str) -> TlsFiles | None:
    """The files that ``install`` has put into ``folder`` for the node ``name``, or for the only node there without a
    name.

    None where there are none. Raises CertificateError where there are several nodes and no name is given.
    """
    names = [name] if name else names_installed(folder)
    if len(names) > 1:
        raise CertificateError(f"{folder} has the certificates of {', '.join(names)}; say which node with --name")
    files = node_files(folder, names[0]) if names else None
    return files if files and files.cert.exists() else None


def names_installed(folder: Path) -> list[str]:
    """The nodes whose keys are in ``folder``."""
    return sorted(path.stem for path in folder.glob("*.key") if not path.stem.endswith(".request"))


def how_to_begin(name: str) -> str:
    """The error for a start without a certificate: the steps to get one."""
    name = name or "NAME"
    return f"""this node has no certificate, and peers accept no node without one. To get one:
  deca-node cert init --federation FEDERATION                  the keeper of the authority, once
  deca-node cert request {name} --federation FEDERATION        and send {name}.csr to the keeper
  deca-node cert approve {name}.csr                            the keeper, who sends {name}.crt back
  deca-node cert install {name}.crt --fingerprint sha256:...   as the keeper tells it
Or allow plaintext: --insecure within this machine, --insecure --insecure on any network"""


def request(folder: Path, node: NodeId) -> Path:
    """Make a new key and a request for a certificate; returns the path of the request, which may travel.

    The new key stays aside until ``install``, so that a running node keeps the key that fits its certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject(node.name))
        .add_extension(node_names(node), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{node.name}.csr"
    with saying(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(_requested_key(folder, node.name), key_pem(key), PRIVATE)
        write(path, asked.public_bytes(serialization.Encoding.PEM), PUBLIC)
    return path


def install(folder: Path, path: Path, fingerprint: str, now: dt.datetime, forget_old: bool = False) -> Facts:
    """Put an approved certificate into its place, beside its key. The node uses both from then on.

    ``fingerprint`` is the authority's, told over another channel. Authorities that were installed earlier stay trusted
    unless ``forget_old`` is set: while a federation changes its authority, certificates of both are in use.
    Raises CertificateError; nothing is changed then.
    """
    leaf, *above = certs.read_certificates(path)
    facts = certs.facts_of(leaf, str(path))
    root = _told(above, fingerprint, path)
    files = node_files(folder, facts.id.name)
    key_path = _key_for(leaf, folder, facts.id, path)
    certs.check_use(leaf, facts.id, str(path))
    certs.check_dates(leaf, now, str(path))
    certs.check_chain([leaf, *above], [root], now, TlsFiles(path, key_path, path))
    between = [one for one in above if one != root]
    with saying(folder):
        _trust(folder, root, forget_old)
        # The node may read the files at any moment. It keeps its old pair until both files of the new one are there.
        if key_path != files.key:
            key_path.replace(files.key)
        write(files.cert, certs.to_pem([leaf, *between]), PUBLIC)
    return facts


def trust(folder: Path, path: Path, fingerprint: str, now: dt.datetime) -> None:
    """Trust one more authority: the next one of a federation that changes its authority. Raises CertificateError."""
    root = _told(certs.read_certificates(path), fingerprint, path)
    certs.check_dates(root, now, str(path))
    with saying(folder):
        _trust(folder, root, forget_old=False)


def _told(given: Sequence[x509.Certificate], fingerprint: str, path: Path) -> x509.Certificate:
    """The authority with the given fingerprint. Other certificates in the file are not trusted."""
    told = certs.parse_fingerprint(fingerprint)
    for one in given:
        if certs.fingerprint_of(one) == told:
            if not certs.vouches(one, one):
                raise CertificateError(f"sha256:{told} in {path} is no authority; ask for the authority's fingerprint")
            return one
    raise CertificateError(
        f"no authority in {path} has the fingerprint sha256:{told}; ask for the fingerprint again, over another "
        "channel than the one of this file: the file may have been replaced on its way"
    )


def _key_for(leaf: x509.Certificate, folder: Path, node: NodeId, path: Path) -> Path:
    """The key of the last request, or the key in use where only its certificate was renewed."""
    places = [key for key in (_requested_key(folder, node.name), node_files(folder, node.name).key) if key.exists()]
    if not places:
        raise CertificateError(
            f"{folder} holds no key of {node.name}; `deca-node cert request {node.name}` comes first"
        )
    for place in places:
        content = certs.read_secret(place)
        with contextlib.suppress(CertificateError):
            certs.check_key(content, leaf, TlsFiles(path, place, path))
            return place
    raise CertificateError(f"{path} is for another key than {node.name}'s in {folder}; was an older request approved?")


def _trust(folder: Path, root: x509.Certificate, forget_old: bool) -> None:
    path = folder / "ca.crt"
    known = certs.read_certificates(path) if path.exists() and not forget_old else []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(path, certs.to_pem([root, *(one for one in known if one != root)]), PUBLIC)


def _requested_key(folder: Path, name: str) -> Path:
    return folder / f"{name}.request.key"
