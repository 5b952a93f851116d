"""This node's name and addresses, and the addresses that it calls first.

They follow from the settings, the peers file and the certificate::

    name        --name, or the name in the certificate, or the name on this node's own line of the peers file
    listen      --listen, or the address on its own line
    advertise   --advertise, or the address on its own line, or the address it listens on
    seeds       the addresses on the other lines, and those in --join
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deca_node.daemon.settings.address import WILDCARDS, Address
from deca_node.daemon.settings.lookup import LocalHosts
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.peers_file import Peer, Peers, check_name, own_line, read_peers
from deca_node.daemon.settings.texts import expanded_path
from deca_node.protocol.errors import PeersError, SettingsError


@dataclass(frozen=True)
class OwnAddress:
    """The four values above, and which peers there are.

    ``expected`` holds the names in the peers file. ``allowed`` holds the names that may take part; None allows every
    node that agrees on the run. ``wait_for`` is the number of nodes that must meet before the run begins.
    """

    name: str
    listen: Address
    advertise: Address
    seeds: tuple[Address, ...]
    expected: frozenset[str]
    allowed: frozenset[str] | None
    wait_for: int
    named: Mapping[str, str] = field(default_factory=dict)
    """The other lines of the peers file: the name of each by its HOST:PORT."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that this node will dial first."""
        return tuple(dict.fromkeys(seed.host for seed in self.seeds))


def find_own_address(node: NodeSettings, certified: str = "") -> OwnAddress:
    """Name and addresses of a node with these settings. ``certified`` is the name in its certificate, if it has one.

    Raises PeersError or SettingsError with a sentence that says what to do.
    """
    if certified and node.name and node.name != certified:
        certificate = node.tls_cert or "that is installed under this name"
        raise SettingsError(f"name = {node.name!r}, but the certificate {certificate} is that of {certified!r}")
    name = certified or node.name
    peers = _read(node)
    own = _own(node, name, peers)
    listen = node.listen_address or own.address
    advertise = node.advertise_address or own.address
    if advertise.host in WILDCARDS:
        raise SettingsError(
            f"no peer can dial {advertise}: set --advertise to the address under which others reach this node"
        )
    names = {peer.name for peer in peers or ()} | {own.name}
    return OwnAddress(
        name=own.name,
        listen=listen,
        advertise=advertise,
        seeds=tuple(dict.fromkeys([p.address for p in peers or () if p.name != own.name] + [*node.seeds])),
        expected=frozenset(names),
        allowed=frozenset(names) if node.membership == "static" else None,
        wait_for=node.wait_for or (len(names) if peers else 2 if node.seeds else 1),
        named={str(peer.address): peer.name for peer in peers or () if peer.name != own.name},
    )


def read_seeds(node: NodeSettings, own: OwnAddress) -> tuple[Address, ...]:
    """The seeds, from the peers file as it is now. Raises PeersError."""
    peers = _read(node)
    return tuple(dict.fromkeys([p.address for p in peers or () if p.name != own.name] + [*node.seeds]))


def _read(node: NodeSettings) -> Peers | None:
    """Read the peers file. It may be missing if --join gives addresses, or if this node is the only one."""
    path = Path(expanded_path(node.peers))
    if not path.exists() and node.membership == "gossip" and (node.join or node.wait_for == 1):
        return None
    return read_peers(path)


def _own(node: NodeSettings, name: str, peers: Peers | None) -> Peer:
    """This node's own line of the file. A node without a line takes its address from the settings, unless only the
    names in the file may take part."""
    listed = peers is not None and (not name or name in peers.names)
    at = node.advertise_address or node.listen_address
    if peers is not None and (listed or node.membership == "static" or at is None):
        try:
            return own_line(peers, name, node.listen_address, LocalHosts(peer.host for peer in peers))
        except PeersError:
            if node.membership == "static" or at is None or name:
                raise
    if at is None:
        raise SettingsError("this node has no line in the peers file: set the address it listens on with --listen")
    return Peer(check_name(name) if name else str(at), at.host, at.port, 0)
