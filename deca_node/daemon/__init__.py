"""The daemon: asyncio, gRPC, files and processes around the pure core. Its own process never imports torch."""

import os

# The trainer is spawned, not forked into; gRPC's handlers for forks have nothing to do here but to warn.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
