"""The security of a node as a whole, made from its settings: certificates, or plaintext where the user allows it.

With certificates, TLS verifies the other end, and every name in a Hello is compared with the certificate. In plaintext
names are not verified. In both cases the lists say which peers are welcome.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deca_node.daemon.security.certificates import TlsFiles
from deca_node.daemon.security.credentials import NodeCredentials
from deca_node.daemon.security.doorman import Doorman, NameLists
from deca_node.daemon.security.enrolment import how_to_begin, installed
from deca_node.daemon.settings.address import is_loopback, parse_address
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.texts import expanded_path
from deca_node.daemon.wire.endpoint import Credentials
from deca_node.protocol.errors import SettingsError

CERTIFICATES = "deca-certs"
"""The folder of a node's certificates below the working directory, unless the settings name another."""

CALLERS_KEPT = 4096


class Security:
    """The certificate in use and the lists of one node.

    ``on_unwelcome(name, sentence)`` is called for each peer that a reload of the lists makes unwelcome. Raises
    CertificateError or SettingsError where a file cannot be used.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self.on_unwelcome: Callable[[str, str], None] = lambda _name, _why: None
        self._loopback_only = settings.insecure == 1
        self._lists = NameLists(_path(settings.allow), _path(settings.deny))
        self._node: NodeCredentials | None = None
        self._callers = Recent(CALLERS_KEPT)
        self._files = _files(settings)
        if self._files:
            self._node = NodeCredentials(self._files)
        federation = self._node.id.federation if self._node else None
        self._doorman = Doorman(federation, self._lists, self._unwelcome)

    @property
    def certified_name(self) -> str:
        """The name in this node's certificate; empty without one."""
        return self._node.id.name if self._node else ""

    @property
    def federation(self) -> str:
        """The federation of this node's certificate; empty without one."""
        return self._node.id.federation if self._node else ""

    @property
    def credentials(self) -> Credentials | None:
        """The credentials for the endpoint; None for plaintext."""
        return self._node.for_endpoint() if self._node else None

    @property
    def expires_in_seconds(self) -> float | None:
        """Seconds until the certificate in use expires; None without a certificate."""
        return self._node.expires_in_seconds if self._node else None

    @property
    def files(self) -> TlsFiles | None:
        """The files of the certificate in use; None for plaintext."""
        return self._files

    @property
    def handshakes(self) -> int | None:
        """How many TLS handshakes callers have begun with this node; None in plaintext."""
        return self._node.handshakes if self._node else None

    @property
    def callers(self) -> int | None:
        """On how many connections a caller has sent a Hello; None in plaintext. The difference to ``handshakes`` is the
        number of callers whose handshake failed, or that sent nothing."""
        return self._callers.seen if self._node else None

    def target_name(self, peer: str) -> str:
        """The DNS name that the certificate of ``peer`` must hold (empty: any member's); empty in plaintext."""
        return self._node.target_name(peer) if self._node else ""

    def probe_context(self) -> ssl.SSLContext | None:
        """A TLS context of Python's own, whose errors say more than gRPC's, to examine a peer; None for plaintext."""
        if self._node is None or self._files is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.set_alpn_protocols(["h2"])
        context.load_verify_locations(cadata=self._node.current().authorities.decode())
        context.load_cert_chain(self._files.cert, self._files.key)
        return context

    def warning(self) -> str | None:
        """A sentence where the certificate expires soon or has expired; otherwise None."""
        return self._node.warning() if self._node else None

    def verify(self, context: Any, claimed_name: str) -> None:
        """Check that the other end of a connection may use this name and is welcome. Raises WireError."""
        if context is not None:
            self._callers.note(context.peer())
        self._doorman.verify(context, claimed_name)

    def may_dial(self, address: str) -> bool:
        """Whether this node may dial HOST:PORT. With one ``--insecure``, only addresses of this machine are allowed."""
        return not self._loopback_only or is_loopback(parse_address(address).host)

    def welcome(self, name: str) -> bool:
        """Whether the lists admit this name."""
        return self._lists.refusal(name) is None

    def _unwelcome(self, name: str, why: str) -> None:
        self.on_unwelcome(name, why)

    def reload(self) -> None:
        """Read the lists again. Raises SettingsError where one is malformed; then both stay as they were."""
        self._doorman.reload()


class Recent:
    """Counts how many different names it is told. It remembers the ``kept`` most recent ones."""

    def __init__(self, kept: int) -> None:
        self.seen = 0
        self._kept = kept
        self._names: dict[str, None] = {}

    def note(self, name: str) -> None:
        """Note a name, which may have been noted before."""
        if name in self._names:
            del self._names[name]
        else:
            self.seen += 1
        self._names[name] = None
        if len(self._names) > self._kept:
            del self._names[next(iter(self._names))]


def _files(settings: NodeSettings) -> TlsFiles | None:
    """The certificate to use: the one in the settings, or the one that `deca-node cert install` has put into this
    folder."""
    if settings.tls_cert:
        return TlsFiles(*(Path(expanded_path(p)) for p in (settings.tls_cert, settings.tls_key, settings.tls_ca)))
    if settings.insecure:
        return None
    found = installed(Path(CERTIFICATES), settings.name)
    if found is None:
        raise SettingsError(how_to_begin(settings.name))
    return found


def _path(text: str) -> Path | None:
    return Path(expanded_path(text)) if text else None
