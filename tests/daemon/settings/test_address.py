"""Addresses: reading and writing them, and which hosts belong to this machine."""

import pytest

from deca_node.daemon.settings.address import Address, host_is_local, is_loopback, parse_address


def test_addresses_are_written_as_they_are_read() -> None:
    for text in ("ward-1.example.org:7001", "10.0.0.5:65535", "[::1]:1"):
        assert str(parse_address(text)) == text
    assert parse_address("Host:7001") == Address("host", 7001)


def test_this_machine_knows_its_own_addresses() -> None:
    assert host_is_local("127.0.0.1")
    assert host_is_local("localhost")
    assert not host_is_local("192.0.2.1"), "an address that is reserved for documentation"
    assert not host_is_local("a..b"), "not a name that could be resolved"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.5", "localhost.example.org")],
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
