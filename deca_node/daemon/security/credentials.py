"""Certificates in use: what grpc takes, read again whenever the files change.

Every handshake, on either side, uses the files as they stand at that moment; connections that stand are not touched.
So certificates are rotated by replacing files, and nothing is restarted. Files that do not fit together (a key that
is there before its certificate is) leave those in use that were in use.

Both sides show a certificate, and only TLS 1.3 is spoken. grpc has no setting for the version; but the one cipher
suite of TLS 1.2 that it is left with needs a key that both sides know beforehand, and there is none. grpc reads
that once, when it is imported, so :mod:`deca_node.daemon` sets it before.
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
    """One node's certificate, key and authorities, for all its handshakes."""

    def __init__(self, files: TlsFiles, now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> None:
        """Read the files. Raises CertificateError."""
        self._files = files
        self._now = now
        # grpc asks from its own threads.
        self._lock = threading.Lock()
        self._seen = _signature(files)
        self._material = certs.read_material(files, now())
        self.handshakes = 0
        """How many callers have begun a handshake with this node, the refused ones included."""

    @property
    def id(self) -> NodeId:
        """Who this node is, by its certificate."""
        return self._material.facts.id

    @property
    def not_after(self) -> dt.datetime:
        """When the certificate in use expires."""
        return self._material.facts.not_after

    @property
    def expires_in_seconds(self) -> float:
        """How long the certificate in use is still valid; negative once it has expired."""
        return (self.not_after - self._now()).total_seconds()

    def current(self) -> Material:
        """The files as they stand now; as they stood before, where what stands now does not fit together."""
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
                raise CertificateError(f"{self._files.cert} is that of {material.facts.id.uri}, not {self.id.uri}")
        except CertificateError as error:
            log.warning("the certificate in use stays: %s", error)
            return
        self._material = material
        log.info("new certificate in use, valid until %s", certs.stamp(material.facts.not_after))

    def server_credentials(self) -> grpc.ServerCredentials:
        """For the one server of a node: callers must show a certificate of ours; each handshake reads anew."""
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

        # None means no change; the stubs do not know it.
        fetcher: Any = renewed
        return grpc.dynamic_ssl_server_credentials(_configuration(in_use), fetcher, require_client_authentication=True)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For one new channel: made anew for every dial, so that it shows the certificate of that moment."""
        tls_only_13.check()
        material = self.current()
        return grpc.ssl_channel_credentials(material.authorities, material.key, material.chain)

    def target_name(self, peer: str) -> str:
        """The DNS name that TLS must find in the certificate of whoever answers, whatever address was dialled.

        Without a name any node of the federation will do; then nothing that it says of its name is proven.
        """
        if not peer:
            return self.id.any_dns_name
        return NodeId(self.id.federation, peer).dns_name

    def for_endpoint(self) -> Credentials:
        """All of it, as the node's endpoint takes it."""
        return Credentials(self.server_credentials(), self.channel_credentials, self.target_name)

    def warning(self) -> str | None:
        """A sentence where the certificate is about to expire or has expired; to be said now and then."""
        seconds = self.expires_in_seconds
        when = certs.stamp(self.not_after)
        if seconds < 0:
            return f"this node's certificate expired on {when}: no peer accepts it; install a new one"
        if seconds < certs.WARN_DAYS * 86400:
            return f"this node's certificate expires on {when}; install a new one, the node need not be restarted"
        return None


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.authorities)


def _signature(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file is replaced; symbolic links, as in mounted secrets, are followed."""
    return tuple(_stamp_of(path) for path in (files.cert, files.key, files.ca))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
