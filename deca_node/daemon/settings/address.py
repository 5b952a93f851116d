"""Network addresses as text, ``host:port`` or ``[IPv6]:port``, and what their hosts mean to this machine."""

import ipaddress
import re
import socket
from typing import NamedTuple

HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})")
WILDCARDS = ("0.0.0.0", "::")
"""A server that listens on one of these hosts listens on every address of its machine; a client cannot dial them."""


class Address(NamedTuple):
    """A host name or IP address (IPv6 without brackets), and a port. ``str()`` gives the text."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``host:port`` or ``[IPv6]:port``. Raises ValueError with a sentence for the user."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (text.startswith("[") and not bracketed):
        raise ValueError(f"{text!r} has no port; write host:port")
    if ":" in host and not bracketed:
        raise ValueError(f"{text!r} has several colons; write an IPv6 address in brackets, as in [::1]:7001")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r}: port {port!r} is not a number from 1 to 65535")
    return Address(_parse_ipv6(host[1:-1]) if bracketed else _parse_host(host, text), int(port))


def local_address(listen: Address) -> Address:
    """The address at which a server that listens there is dialled from its own machine."""
    return listen._replace(host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host))


def is_loopback(host: str) -> bool:
    """Whether ``host`` certainly is this machine. Of names only localhost is: other names may resolve to anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_is_local(host: str) -> bool:
    """Whether ``host`` is, or resolves to, an address of this machine. Loopback counts.

    The kernel answers: it lets a socket bind to the machine's own addresses only. A host that does not resolve counts
    as another machine, which may not be up yet.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    return any(_can_bind(family, address) for family, _, _, _, address in found)


def _can_bind(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _parse_host(host: str, text: str) -> str:
    if not host:
        raise ValueError(f"{text!r} has no host; write host:port")
    if not HOST.fullmatch(host):
        raise ValueError(f"{text!r}: {host!r} is not a host name or address")
    return host.lower()


def _parse_ipv6(text: str) -> str:
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv6 address") from None
