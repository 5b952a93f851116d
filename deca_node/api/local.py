"""Names and free ports for several nodes on this machine."""

import socket

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address at which no process listens now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def local_peers(*names: str) -> list[str]:
    """Peers of these names on this machine, as NAME@HOST:PORT, for ``peers=`` of :class:`~deca_node.api.node.Node`."""
    return [f"{name}@{LOOPBACK}:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
