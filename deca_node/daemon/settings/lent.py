"""What must hold before other servers of a party may lend ranks: a secret in common, and an address that is private.

What the ranks of a trainer exchange is neither encrypted nor authenticated, as everywhere in torch.distributed.
"""

import ipaddress
import socket
from pathlib import Path

from deca_node.daemon.settings.address import WILDCARDS, is_loopback
from deca_node.protocol.errors import AddressError, SettingsError

SECRET_LENGTH_MIN, SECRET_BYTES_MAX = 16, 4096


def read_secret(path: str, host: str) -> str:
    """The secret in a file, without white space around it; empty if there is none and ``host`` is loopback. Raises
    SettingsError."""
    if not path:
        if is_loopback(host):
            return ""
        raise SettingsError(f"the servers that lend ranks at {host} need a secret in common: set ranks_secret")
    try:
        with Path(path).expanduser().open("rb") as file:
            secret = file.read(SECRET_BYTES_MAX).decode().strip()
    except (OSError, ValueError, RuntimeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else problem
        raise SettingsError(f"ranks_secret: {path} cannot be read: {why}") from None
    if len(secret) < SECRET_LENGTH_MIN:
        raise SettingsError(
            f"ranks_secret: {path} holds fewer than {SECRET_LENGTH_MIN} characters; "
            f"make a secret with: openssl rand -hex 32 > {path}"
        )
    return secret


def check_private(host: str) -> None:
    """Raise SettingsError unless every address of ``host`` is private: torch.distributed does not encrypt."""
    advice = "name an address of this server in a private network of your own"
    if host in WILDCARDS:
        raise SettingsError(f"ranks_at = {host} would be open on every network of this server; {advice}")
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as problem:
        raise AddressError(f"ranks_at = {host} is unknown: {problem.strerror or problem}") from None
    for address in sorted(map(str, found)):
        if ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise SettingsError(
                f"ranks_at = {host} is the public address {address}, and ranks do not encrypt; {advice}"
            )
