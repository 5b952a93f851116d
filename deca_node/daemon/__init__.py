"""The daemon: asyncio, gRPC, files and processes around the pure core. Its own process never imports torch."""

import os

from deca_node.daemon.security import tls_only_13

# The trainer is spawned, not forked into; gRPC's handlers for forks have nothing to do here but to warn.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Here, because nothing can import a module of this package, and grpc with it, before.
tls_only_13.demand()
