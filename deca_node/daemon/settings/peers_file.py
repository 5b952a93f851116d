"""The peers file: one line per node, the same file on every machine.

::

    # name@host:port, or host:port alone, which makes the address the name
    north@10.0.0.5:7001
    south@10.0.0.6:7001     # the second ward
    [2001:db8::7]:7001

A name has letters, digits and ``. _ : - [ ]``, begins with a letter, a digit or ``[``, and has at most 128 characters.
It becomes part of folder names, metrics and frames. All nodes share one file, so each node must find its own line:
:func:`own_line` does that, or raises an error that asks for ``--name`` or ``--listen``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deca_node.daemon.settings.address import WILDCARDS, Address, parse_address
from deca_node.protocol.agreed.settings import nearest
from deca_node.protocol.errors import PeersError

NAME = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,127}")


@dataclass(frozen=True)
class Peer:
    """One line of the peers file; ``line`` counts from 1."""

    name: str
    host: str
    port: int
    line: int

    @property
    def address(self) -> Address:
        """The address at which others dial this peer."""
        return Address(self.host, self.port)


@dataclass(frozen=True)
class Peers:
    """The whole file, in the order of its lines. Names and addresses are unique."""

    path: str
    lines: tuple[Peer, ...]

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> tuple[str, ...]:
        """Every member's name, in the order of the file."""
        return tuple(peer.name for peer in self.lines)


def read_peers(path: Path) -> Peers:
    """Read and parse a peers file. Raises PeersError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PeersError(f"the peers file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PeersError(f"the peers file {path} is not UTF-8 text") from error
    return parse_peers(text, str(path))


def parse_peers(text: str, path: str) -> Peers:
    """Parse the text of a peers file. ``path`` is used in error sentences only. Raises PeersError."""
    peers = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        if entry:
            try:
                peers.append(_parse_entry(entry, number))
            except ValueError as error:
                raise PeersError(f"{path} line {number}: {error}") from error
    if not peers:
        raise PeersError(f"{path} names no peers; write one host:port or name@host:port per line")
    _refuse_duplicates(peers, path)
    return Peers(path, tuple(peers))


def own_line(peers: Peers, name: str, listen: Address | None, is_local: Callable[[str], bool]) -> Peer:
    """Find this node's own line in the file.

    The first of these that is given decides: ``name``; the line that equals ``listen``; the only line whose host is an
    address of this machine according to ``is_local``. If ``listen`` is a wildcard address, lines must have its port.
    Raises PeersError with a sentence that says what to do.
    """
    if name:
        return _line_named(peers, name)
    if listen and listen.host not in WILDCARDS:
        return _line_at(peers, listen)
    local = [peer for peer in peers if (not listen or peer.port == listen.port) and is_local(peer.host)]
    if len(local) == 1:
        return local[0]
    if local:
        raise PeersError(
            f"{len(local)} lines of {peers.path} are addresses of this machine: {_listed(local)}; "
            "say which one this node is with --name or --listen"
        )
    port = f" with port {listen.port}" if listen else ""
    raise PeersError(
        f"no line of {peers.path}{port} is an address of this machine; add this node's own line to the file, "
        "or say which line it is with --name"
    )


def check_name(name: str) -> str:
    """Check a name that does not come from a peers file; returns it. Raises PeersError if no file could hold it."""
    try:
        return _checked_name(name)
    except ValueError as error:
        raise PeersError(str(error)) from None


def _parse_entry(entry: str, line: int) -> Peer:
    name, at, text = entry.rpartition("@")
    address = parse_address(text)
    if address.host in WILDCARDS:
        raise ValueError(f"no peer can dial {text!r}; write the address under which the others reach this peer")
    if at:
        _checked_name(name)
    if not at and not NAME.fullmatch(str(address)):
        raise ValueError(f"{text!r} cannot be a name as well as an address; write name@host:port")
    return Peer(name or str(address), address.host, address.port, line)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a peer's name; use letters, digits and . _ : - [ ], a letter or digit first, "
            "and at most 128 in all"
        )
    return name


def _refuse_duplicates(peers: Sequence[Peer], path: str) -> None:
    names: dict[str, int] = {}
    addresses: dict[Address, int] = {}
    for peer in peers:
        if peer.address in addresses:
            raise PeersError(
                f"{path} line {peer.line}: the address {peer.address} is on line {addresses[peer.address]} already"
            )
        if peer.name in names:
            raise PeersError(f"{path} line {peer.line}: the name {peer.name!r} is on line {names[peer.name]} already")
        names[peer.name] = addresses[peer.address] = peer.line


def _line_named(peers: Peers, name: str) -> Peer:
    for peer in peers:
        if peer.name == name:
            return peer
    raise PeersError(f"{peers.path} has no peer named {name!r}{nearest(name, peers.names)}")


def _line_at(peers: Peers, listen: Address) -> Peer:
    for peer in peers:
        if peer.address == listen:
            return peer
    raise PeersError(
        f"{peers.path} has no line {listen}, the address this node listens on; "
        "add it to the file, or say which line is this node's own with --name"
    )


def _listed(peers: Sequence[Peer], count_max: int = 8) -> str:
    lines = [f"line {p.line} ({p.name})" for p in peers[:count_max]]
    return ", ".join([*lines, "..."] if len(peers) > count_max else lines)
