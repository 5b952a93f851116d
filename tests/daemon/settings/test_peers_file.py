"""The peers file: valid lines, the sentence for each invalid one, and how a node finds its own line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deca_node.daemon.settings.address import parse_address
from deca_node.daemon.settings.peers_file import Peer, own_line, parse_peers, read_peers
from deca_node.protocol.errors import PeersError

WARDS = """\
# three wards
north@10.0.0.5:7001

south@10.0.0.6:7001   # the second
[2001:DB8::7]:7002
"""


def local(*hosts: str) -> Callable[[str], bool]:
    return lambda host: host in hosts


def nowhere(host: str) -> bool:
    raise AssertionError(f"nobody was to ask about {host}")


def test_names_comments_and_blank_lines() -> None:
    peers = parse_peers(WARDS, "peers.txt")
    assert list(peers) == [
        Peer("north", "10.0.0.5", 7001, 2),
        Peer("south", "10.0.0.6", 7001, 4),
        Peer("[2001:db8::7]:7002", "2001:db8::7", 7002, 5),
    ]
    assert len(peers) == 3
    assert peers.names == ("north", "south", "[2001:db8::7]:7002")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("foo", "'foo' has no port; write host:port"),
        ("[::1]", "'[::1]' has no port; write host:port"),
        ("north@foo", "'foo' has no port; write host:port"),
        ("::1:7001", "'::1:7001' has several colons; write an IPv6 address in brackets, as in [::1]:7001"),
        ("[::g]:7001", "'::g' is not an IPv6 address"),
        ("host:", "'host:': port '' is not a number from 1 to 65535"),
        ("host:0", "'host:0': port '0' is not a number from 1 to 65535"),
        ("host:65536", "'host:65536': port '65536' is not a number from 1 to 65535"),
        ("host:²", "'host:²': port '²' is not a number from 1 to 65535"),
        (":7001", "':7001' has no host; write host:port"),
        ("two words:7001", "'two words:7001': 'two words' is not a host name or address"),
        ("0.0.0.0:7001", "no peer can dial '0.0.0.0:7001'; write the address under which the others reach this peer"),
        (
            "a/b@host:7001",
            "'a/b' is not a peer's name; use letters, digits and . _ : - [ ], a letter or digit first, "
            "and at most 128 in all",
        ),
        (
            "h" * 130 + ":7001",
            f"'{'h' * 130}:7001' cannot be a name as well as an address; write name@host:port",
        ),
    ],
)
def test_every_malformed_line_is_named(line: str, sentence: str) -> None:
    with pytest.raises(PeersError) as refused:
        parse_peers(f"# comment\nok:1\n{line}\n", "peers.txt")
    assert str(refused.value) == f"peers.txt line 3: {sentence}"


@pytest.mark.parametrize("name", ["", "..", ".hidden", "-x", "a b", "ü", "a" * 129])
def test_names_that_would_not_do_for_a_folder_are_refused(name: str) -> None:
    with pytest.raises(PeersError, match="is not a peer's name"):
        parse_peers(f"{name}@host:7001", "peers.txt")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a@h:1\n\nb@H:1", "peers.txt line 3: the address h:1 is on line 1 already"),
        ("a@h:1\na@h:2", "peers.txt line 2: the name 'a' is on line 1 already"),
        ("# none\n", "peers.txt names no peers; write one host:port or name@host:port per line"),
    ],
)
def test_the_file_as_a_whole(text: str, sentence: str) -> None:
    with pytest.raises(PeersError) as refused:
        parse_peers(text, "peers.txt")
    assert str(refused.value) == sentence


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "peers.txt"
    with pytest.raises(PeersError, match="cannot be read: No such file or directory"):
        read_peers(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PeersError, match="is not UTF-8 text"):
        read_peers(path)
    path.write_bytes("\ufeffa@h:1\r\nb@h:2\r\n".encode())
    assert read_peers(path).names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "listen", "is_local", "line"),
    [
        ("south", "10.0.0.5:7001", nowhere, 4),
        ("south", "0.0.0.0:7001", nowhere, 4),
        ("", "10.0.0.5:7001", nowhere, 2),
        ("", "[2001:db8:0::7]:7002", nowhere, 5),
        ("", "", local("10.0.0.6"), 4),
        ("", "0.0.0.0:7002", local("10.0.0.6", "2001:db8::7"), 5),
    ],
    ids=["name wins", "wildcard with a name", "listen", "listen on IPv6", "only local line", "wildcard, by its port"],
)
def test_own_line_is_found(name: str, listen: str, is_local: Callable[[str], bool], line: int) -> None:
    peers = parse_peers(WARDS, "peers.txt")
    assert own_line(peers, name, parse_address(listen) if listen else None, is_local).line == line


@pytest.mark.parametrize(
    ("name", "listen", "is_local", "sentence"),
    [
        ("nort", "", nowhere, "peers.txt has no peer named 'nort'; did you mean 'north'?"),
        (
            "",
            "10.0.0.5:7009",
            nowhere,
            "peers.txt has no line 10.0.0.5:7009, the address this node listens on; "
            "add it to the file, or say which line is this node's own with --name",
        ),
        (
            "",
            "",
            local("10.0.0.5", "10.0.0.6"),
            "2 lines of peers.txt are addresses of this machine: line 2 (north), line 4 (south); "
            "say which one this node is with --name or --listen",
        ),
        (
            "",
            "",
            local(),
            "no line of peers.txt is an address of this machine; add this node's own line to the file, "
            "or say which line it is with --name",
        ),
        (
            "",
            "[::]:7009",
            local("10.0.0.5"),
            "no line of peers.txt with port 7009 is an address of this machine; add this node's own line to the file, "
            "or say which line it is with --name",
        ),
    ],
)
def test_own_line_cannot_be_told(name: str, listen: str, is_local: Callable[[str], bool], sentence: str) -> None:
    peers = parse_peers(WARDS, "peers.txt")
    with pytest.raises(PeersError) as refused:
        own_line(peers, name, parse_address(listen) if listen else None, is_local)
    assert str(refused.value) == sentence


def test_many_local_lines_are_listed_up_to_a_limit() -> None:
    peers = parse_peers("".join(f"localhost:{port}\n" for port in range(7001, 7041)), "peers.txt")
    with pytest.raises(PeersError, match=r"40 lines .* line 8 \(localhost:7008\), \.\.\.; say"):
        own_line(peers, "", None, local("localhost"))
