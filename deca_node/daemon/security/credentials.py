"""The certificate in use, in the form that gRPC takes. It is read again whenever its files change.

Every handshake, on either side, uses the files as they are at that moment; open connections are not affected. So a
certificate is rotated by replacing its files, without a restart. While the files do not fit together, for example a new
key beside an old certificate, the pair that was in use stays in use.

Both sides show a certificate, and both use TLS 1.3 only (:mod:`deca_node.daemon.security.tls_only_13`).
"""

import datetime as dt
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security import tls_only_13
from deca_node.daemon.security.certificates import CertificateError, Material, NodeId, TlsFiles
from deca_node.daemon.wire.endpoint import Credentials

log = logging.getLogger("deca")


class NodeCredentials:
    """One node's certificate, key and authorities, for all of its handshakes."""

    def __init__(self, files: TlsFiles, now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> None:
        """Read the files. Raises CertificateError."""
        self._files = files
        self._now = now
        # gRPC calls from its own threads.
        self._lock = threading.Lock()
        self._seen = _signature(files)
        self._material = certs.read_material(files, now())
        self.handshakes = 0
        """How many handshakes callers have begun with this node, including refused ones."""

    @property
    def id(self) -> NodeId:
        """The node's name in its certificate."""
        return self._material.facts.id

    @property
    def not_after(self) -> dt.datetime:
        """When the certificate in use expires."""
        return self._material.facts.not_after

    @property
    def expires_in_seconds(self) -> float:
        """Seconds until the certificate in use expires; negative once it has expired."""
        return (self.not_after - self._now()).total_seconds()

    def current(self) -> Material:
        """The content of the files now, or the content before where the files do not fit together now."""
        with self._lock:
            seen = _signature(self._files)
            if seen != self._seen:
                self._seen = seen
                self._read_again()
            return self._material

    def _read_again(self) -> None:
        try:
            material = certs.read_material(self._files, self._now())
            if material.facts.id != self.id:
                raise CertificateError(f"{self._files.cert} is that of {material.facts.id.uri}, not of {self.id.uri}")
        except CertificateError as error:
            log.warning("the certificate in use stays in use: %s", error)
            return
        self._material = material
        log.info("a new certificate is in use, valid until %s", certs.stamp(material.facts.not_after))

    def server_credentials(self) -> grpc.ServerCredentials:
        """For the node's server. Callers must show a certificate of the federation. Each handshake reads the files
        again if they have changed."""
        tls_only_13.check()
        in_use = self.current()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal in_use
            self.handshakes += 1
            material = self.current()
            if material is in_use:
                return None
            in_use = material
            return _configuration(material)

        # None means no change. The stubs do not allow it.
        fetcher: Any = renewed
        return grpc.dynamic_ssl_server_credentials(_configuration(in_use), fetcher, require_client_authentication=True)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For one new channel. They are made for every dial, so that it shows the certificate of that moment."""
        tls_only_13.check()
        material = self.current()
        return grpc.ssl_channel_credentials(material.authorities, material.key, material.chain)

    def target_name(self, peer: str) -> str:
        """The DNS name that TLS must find in the certificate of the node that answers, whatever address was dialled.

        With an empty name every node of the federation is accepted, and the name that it says is not verified.
        """
        if not peer:
            return self.id.any_dns_name
        return NodeId(self.id.federation, peer).dns_name

    def for_endpoint(self) -> Credentials:
        """These credentials in the form that the endpoint takes."""
        return Credentials(self.server_credentials(), self.channel_credentials, self.target_name)

    def warning(self) -> str | None:
        """A sentence where the certificate expires soon or has expired; otherwise None."""
        seconds = self.expires_in_seconds
        when = certs.stamp(self.not_after)
        if seconds < 0:
            return f"this node's certificate expired on {when}: no peer accepts it; install a new one"
        if seconds < certs.WARN_DAYS * 86400:
            return f"this node's certificate expires on {when}; install a new one; the node need not be restarted"
        return None


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.authorities)


def _signature(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """A value that changes when a file is replaced. Symbolic links, as in mounted secrets, are followed."""
    return tuple(_stamp_of(path) for path in (files.cert, files.key, files.ca))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
