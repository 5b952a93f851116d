"""Restricts every channel and server of this process to TLS 1.3.

gRPC for Python has no setting for the lowest version of TLS. It has one for the cipher suites of TLS 1.2, which leaves
those of TLS 1.3 alone. Here it is set to a single suite that needs a pre-shared key. No node has such a key, so TLS 1.2
can be offered but never agreed on. gRPC reads the variable once, when it is imported. Therefore this module imports
nothing of gRPC, and the package imports it first.
"""

import os
import sys

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
SUITE = "ECDHE-PSK-AES128-CBC-SHA"

_in_time = False


def demand() -> None:
    """Set the variable, whatever the environment says. To be called before any import of grpc."""
    global _in_time  # noqa: PLW0603  (a fact about the process, learned once)
    _in_time = _in_time or "grpc" not in sys.modules or os.environ.get(VARIABLE) == SUITE
    os.environ[VARIABLE] = SUITE


def check() -> None:
    """Assert that grpc was not imported first, since it would agree to TLS 1.2 then."""
    assert _in_time, "grpc was imported before deca_node.daemon; it would accept TLS 1.2"
