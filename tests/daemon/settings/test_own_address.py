"""A node's name and addresses from its settings, the peers file and its certificate; combinations that are refused."""

from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.own_address import OwnAddress, find_own_address, read_seeds
from deca_node.protocol.errors import DecaError, PeersError, SettingsError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("peers.txt").write_text("north@127.0.0.1:7001\nsouth@10.255.255.1:7002\neast@10.255.255.2:7003\n")
    return tmp_path


def place(certified: str = "", **settings: Any) -> OwnAddress:
    return find_own_address(NodeSettings(**settings), certified)


def test_the_own_line_says_it_all() -> None:
    found = place(name="north")
    assert (found.name, found.listen, found.advertise) == (
        "north",
        Address("127.0.0.1", 7001),
        Address("127.0.0.1", 7001),
    )
    assert found.seeds == (Address("10.255.255.1", 7002), Address("10.255.255.2", 7003))
    assert (found.wait_for, found.allowed) == (3, None)
    assert place() == found, "the only line that is this machine's"


def test_a_certificate_names_the_node() -> None:
    assert place(certified="north").name == "north"
    with pytest.raises(SettingsError, match="name = 'south', but the certificate c is that of 'north'"):
        place(certified="north", name="south", tls_cert="c", tls_key="k", tls_ca="a")
    with pytest.raises(SettingsError, match="the certificate that is installed under this name is that of 'north'"):
        place(certified="north", name="south")


def test_who_is_not_in_the_file_may_come_all_the_same() -> None:
    found = place(name="west", listen="127.0.0.1:9000", advertise="west.example:9000", join="a.example:1, b.example:2")
    assert (found.name, found.listen) == ("west", Address("127.0.0.1", 9000))
    assert found.advertise == Address("west.example", 9000)
    assert len(found.seeds) == 5
    assert found.wait_for == 4, "those in the file, and itself"


def test_a_static_membership_is_the_names_in_the_file() -> None:
    assert place(name="north", membership="static").allowed == {"north", "south", "east"}
    with pytest.raises(PeersError, match="no peer named 'west'"):
        place(name="west", listen="127.0.0.1:9000", membership="static")


def test_without_a_file_join_must_name_a_member() -> None:
    Path("peers.txt").unlink()
    found = place(name="west", listen="127.0.0.1:9000", join="a.example:1")
    assert (found.seeds, found.wait_for) == ((Address("a.example", 1),), 2)
    assert place(name="west", listen="127.0.0.1:9000", join="a.example:1", wait_for=5).wait_for == 5
    with pytest.raises(PeersError, match="cannot be read"):
        place(name="west", listen="127.0.0.1:9000")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "west", "listen": "0.0.0.0:9000"}, "no peer can dial 0.0.0.0:9000"),
        ({"name": "west"}, "has no peer named 'west'"),
        ({"name": "west/1", "listen": "127.0.0.1:9000"}, "'west/1' is not a peer's name"),
    ],
)
def test_refused_combinations(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DecaError, match=sentence):
        place(**settings)


def test_the_file_is_read_again() -> None:
    node = NodeSettings(name="north")
    found = find_own_address(node)
    with Path("peers.txt").open("a") as file:
        file.write("west@10.255.255.3:7004\n")
    assert read_seeds(node, found) == (*found.seeds, Address("10.255.255.3", 7004))
