"""The network between servers of one party, as a process sees it: a port to meet at, and the interface towards it."""

import contextlib
import fcntl
import os
import socket
import struct

from deca_node.protocol.errors import TrainerError

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""They name the interface for gloo and NCCL."""
SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface (netdevice(7))."""


def listen_at(host: str) -> tuple[int, int]:
    """A free port of this address that listens, and the descriptor of its socket. Raises TrainerError."""
    try:
        listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as problem:
        raise TrainerError(f"the ranks cannot meet at {host}: {problem.strerror or problem}") from None
    return listening.getsockname()[1], listening.detach()


def use_interface_towards(host: str) -> None:
    """Have gloo and NCCL use the interface through which this machine reaches ``host``, unless the environment names
    others. Raises TrainerError."""
    if not all(os.environ.get(variable) for variable in VARIABLES):
        found = interface_towards(host)
        for variable in VARIABLES:
            os.environ.setdefault(variable, found)


def interface_towards(host: str) -> str:
    """The name of this machine's interface whose IPv4 address it uses to reach ``host``. Raises TrainerError."""
    named = f"set {' and '.join(VARIABLES)} to the interface that the servers share"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            own = socket.inet_aton(probe.getsockname()[0])
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                with contextlib.suppress(OSError):
                    if fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24] == own:
                        return name
    except OSError as problem:
        raise TrainerError(f"the way to {host} is unknown ({problem.strerror or problem}); {named}") from None
    raise TrainerError(f"the interface towards {host} cannot be found; {named}")
