"""Variables of the environment that could send peers' traffic elsewhere, and the names of those that are set.

Peers are reached at the addresses that they announce, and by no detour. gRPC would go through a proxy that some
variables name; every channel to a peer turns that off (:mod:`deca_node.daemon.wire.endpoint`). The resolver would look
up other names than the ones in the peers file; its variables are removed before the first look-up.

Sources: grpc/doc/environment_variables.md; resolver(5), hostname(7).
"""

import os
from collections.abc import Iterator, Mapping

PROXIES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "grpc_proxy",
    "GRPC_ADDRESS_HTTP_PROXY",
    "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES",
)
"""Programs read the first four in small or in capital letters; downloads from the model hub use three of them."""
RESOLVER = ("HOSTALIASES", "LOCALDOMAIN")
"""A file of other names for hosts, and the domain that is appended to short names."""

_removed: list[str] = []


def remove_resolver_variables() -> None:
    """Take the resolver's variables out of this process and its children. To be called before the first look-up."""
    _removed.extend(name for name in RESOLVER if os.environ.pop(name, None))


def redirecting(environ: Mapping[str, str]) -> list[str]:
    """The names of all such variables that are set, or were set when this process began."""
    return sorted({*_removed, *_set_in(environ)})


def _set_in(environ: Mapping[str, str]) -> Iterator[str]:
    for name in (*PROXIES, *RESOLVER):
        yield from (spelled for spelled in {name, name.upper()} if environ.get(spelled))
