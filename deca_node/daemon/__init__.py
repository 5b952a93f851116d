"""A running node: asyncio, gRPC, files and processes around the pure core. This process never imports torch.

::

    supervise        from settings to an exit code: lock the folder, begin the log, run the daemon
    daemon           start, loop, shutdown: events go into the node, its commands go to the performer
    performer        performs commands: frames to peers, work to the trainer, requests to the network
    administration   what the node's owner sees of it and can ask of it
    network          what other nodes see of it
    terminal         a bar below the log lines, on a terminal
    logs             log lines, and the newest of them in memory
    settings/        this machine's settings, the peers file, addresses
    security/        certificates, who is welcome
    wire/            bytes: server and channels, frames, packets, checksums, rate limits
    links/           sessions with peers: streams for updates, small streams for membership
    transfer/        block versions and start models, given and fetched
    trainer/         the trainer's process and the shared memory between it and the daemon
    status/          what the node knows of itself: status, metrics, history, journal
    web/             HTTP on a port and on a socket in the node's folder
    diagnosis/       checks before a start, and the bundle for an error report
    wire_pb/         code generated from proto/
"""

import os

from deca_node.daemon.security import tls_only_13
from deca_node.daemon.settings.environment import remove_resolver_variables

# The trainer is spawned, not forked. gRPC's fork handlers would only print warnings.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Modules of this package import grpc, and grpc reads its environment once. This module runs before any of them.
tls_only_13.demand()
# The resolver of gRPC and that of the system would follow them.
remove_resolver_variables()
