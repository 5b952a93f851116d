"""TLS 1.3 and nothing older, in every channel and server of this process.

grpc for Python cannot be told a smallest version of TLS. It can be told the cipher suites of TLS 1.2, though, and
those of 1.3 are not among them: left with one that needs a pre-shared key, which nobody has, TLS 1.2 can be offered
but never agreed on. The variable is read once, when grpc is imported; hence a module of its own, which imports
nothing of grpc and which the package imports first.
"""

import os
import sys

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
SUITE = "ECDHE-PSK-AES128-CBC-SHA"

_in_time = False


def demand() -> None:
    """Set the variable, whatever the environment says. Call before anything imports grpc."""
    global _in_time  # noqa: PLW0603  (a fact about the process, learned once)
    _in_time = _in_time or "grpc" not in sys.modules or os.environ.get(VARIABLE) == SUITE
    os.environ[VARIABLE] = SUITE


def check() -> None:
    """A bug if grpc was imported first: it would agree to TLS 1.2."""
    assert _in_time, "grpc was imported before deca_node.daemon; it would accept TLS 1.2"
