"""Compares the name in a Hello with the caller's certificate, and with the lists of peers that are welcome.

TLS has verified before that a trusted authority has issued the certificate. It has not verified the name: a member
could say another member's name. So the name in every Hello is compared with the certificate of its connection, and then
with two lists, allow and deny, which may change while the node runs.

If this node has called, TLS has compared the certificate with the called name, and gRPC shows nothing of the
certificate. Then the lists are compared with the name only.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.certificates import CertificateError, Facts, NodeId
from deca_node.daemon.settings.peers_file import NAME
from deca_node.protocol.errors import SettingsError, WireError

AuthContext = Mapping[str, Iterable[bytes]]

SEEN_MAX = 4096
"""How many names are remembered for the next change of the lists."""

_FINGERPRINT = re.compile(r"sha256:[0-9A-Fa-f:]+")


def caller_facts(auth_context: AuthContext, now: dt.datetime) -> Facts:
    """The facts in a caller's certificate. Raises WireError("identity"), or WireError("expired").

    This reads the certificate itself. gRPC lists the names in it as well, but in that list a DNS name that looks like
    a URI cannot be told from a URI. The dates are checked again because TLS does not verify a resumed session.
    """
    pem = list(auth_context.get("x509_pem_cert", ()))
    if len(pem) != 1:
        raise WireError("identity", "the connection carries no certificate")
    try:
        leaf = certs.parse_certificates(pem[0], "the caller's certificate")[0]
        facts = certs.facts_of(leaf, "the caller's certificate")
    except CertificateError as error:
        raise WireError("identity", str(error)) from error
    if now > facts.not_after:
        raise WireError("expired", f"the certificate of {facts.id.name} expired on {certs.stamp(facts.not_after)}")
    return facts


@dataclass(frozen=True)
class NameList:
    """Names of nodes and fingerprints of certificates, from a file with one entry per line."""

    entries: frozenset[str]

    def has(self, name: str, fingerprint: str) -> bool:
        """Whether the list holds the name or the fingerprint (hexadecimal; empty where it is not known)."""
        return name in self.entries or (bool(fingerprint) and f"sha256:{fingerprint}" in self.entries)


def read_list(path: Path) -> NameList:
    """Read a list of names and ``sha256:`` fingerprints. ``#`` begins a comment. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"the list {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"the list {path} is not UTF-8 text") from error
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return NameList(frozenset(_entry(entry, f"{path} line {number}") for number, entry in lines if entry))


def _entry(text: str, where: str) -> str:
    if _FINGERPRINT.fullmatch(text):
        try:
            return f"sha256:{certs.parse_fingerprint(text)}"
        except CertificateError as error:
            raise SettingsError(f"{where}: {error}") from error
    if not NAME.fullmatch(text):
        raise SettingsError(f"{where}: {text!r} is neither a node's name nor sha256: and a fingerprint")
    return text


class NameLists:
    """The allow-list and the deny-list. A peer is welcome if it is on the allow-list, or there is none, and it is not
    on the deny-list."""

    def __init__(self, allow: Path | None, deny: Path | None) -> None:
        """Read both lists. Raises SettingsError."""
        self._paths = (allow, deny)
        self._allow: NameList | None = None
        self._deny: NameList | None = None
        self.reload()

    def reload(self) -> None:
        """Read both files again. Raises SettingsError where one is malformed; both lists stay as they were then."""
        self._allow, self._deny = [read_list(path) if path else None for path in self._paths]

    def refusal(self, name: str, fingerprint: str = "") -> WireError | None:
        """The reason why this name or certificate is not welcome; None where it is."""
        if self._deny is not None and self._deny.has(name, fingerprint):
            return WireError("denied", f"{name} is on this node's deny-list")
        if self._allow is not None and not self._allow.has(name, fingerprint):
            return WireError("not-allowed", f"{name} is not on this node's allow-list")
        return None


class Doorman:
    """Checks the name in every Hello. It remembers the peers that it has admitted, so that a changed list reaches them
    as well."""

    def __init__(self, federation: str | None, lists: NameLists, on_unwelcome: Callable[[str, str], None]) -> None:
        """``federation`` is the one in this node's certificate, or None for plaintext.

        ``on_unwelcome(name, sentence)`` is called for each name that a reload has made unwelcome, so that its sessions
        can be ended.
        """
        self._federation = federation
        self._lists = lists
        self._on_unwelcome = on_unwelcome
        self._seen: dict[str, str] = {}

    def verify(self, context: Any, claimed_name: str) -> None:
        """Check the name in a Hello. ``context`` is gRPC's ServicerContext for a caller, None for a peer that was
        called.

        Raises WireError: "identity" for a name that the certificate does not hold, "expired", "denied" or
        "not-allowed".
        """
        fingerprint = ""
        if self._federation is not None and context is not None:
            bearer = caller_facts(context.auth_context(), dt.datetime.now(dt.UTC))
            self._check_name(bearer.id, claimed_name, self._federation)
            fingerprint = bearer.fingerprint
        refusal = self._lists.refusal(claimed_name, fingerprint)
        if refusal is not None:
            raise refusal
        self._remember(claimed_name, fingerprint)

    def _remember(self, name: str, fingerprint: str) -> None:
        known = self._seen.pop(name, "")
        self._seen[name] = fingerprint or known
        # With certificates there are as many names as members. In plaintext a caller may invent any number.
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def reload(self) -> list[str]:
        """Read the lists again; returns the names that are unwelcome from now on. Raises SettingsError."""
        self._lists.reload()
        gone = []
        for name, fingerprint in list(self._seen.items()):
            refusal = self._lists.refusal(name, fingerprint)
            if refusal is not None:
                del self._seen[name]
                self._on_unwelcome(name, str(refusal))
                gone.append(name)
        return gone

    @staticmethod
    def _check_name(bearer: NodeId, claimed_name: str, federation: str) -> None:
        if bearer.federation != federation:
            raise WireError(
                "identity", f"the certificate is of the federation {bearer.federation}, not of {federation}"
            )
        if bearer.name != claimed_name:
            raise WireError("identity", f"the certificate is that of {bearer.name}, and the Hello says {claimed_name}")
