"""A testbed's files: its ports stay free for a node that is away."""

import socket
from pathlib import Path

import pytest

from deca_node.daemon.settings.peers_file import read_peers
from deca_node.lab.demo import testbed
from deca_node.lab.rigs.processes import LOOPBACK, usual_ports


def test_ports_are_the_usual_ones_unless_one_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        first = taken.getsockname()[1] - 1
        assert first + 1 not in usual_ports(first, 2)


def test_nodes_listen_where_no_outgoing_connection_is_given_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port in the system's own range may be taken while its node is dead; then the node could not come back."""
    monkeypatch.setattr(testbed, "usual_ports", lambda first, count: list(range(first, first + count)))
    made = type("Made", (), {"path": tmp_path / "model"})
    monkeypatch.setattr(testbed, "make_inputs", lambda *_: made)
    testbed.prepare(tmp_path)
    ports = [peer.address.port for peer in read_peers(tmp_path / "peers.txt")]
    assert ports == [9651, 9652, 9653, 9654]
    assert max(ports) < 32768
