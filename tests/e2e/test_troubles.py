"""What goes wrong between real processes, and what a person reads then."""

import signal
import socket

from deca_node.lab.rigs.processes import LOOPBACK
from tests.e2e.testbed import Testbed, metrics, until
from tests.patience import PATIENCE_SECONDS


def test_a_different_setting_is_named_with_both_values(testbed: Testbed) -> None:
    testbed.peers("north", "south")
    nodes = [testbed.start("north"), testbed.start("south", learning_rate=2e-3)]
    for node in nodes:
        assert node.process.wait(PATIENCE_SECONDS) == 7
        text = node.log_text()
        assert "learning_rate is 0.001 at north and 0.002 at south" in text or (
            "learning_rate is 0.002 at south and 0.001 at north" in text
        )
        assert "Traceback" not in text


def test_the_odd_one_out_of_three_goes_and_may_come_back(testbed: Testbed) -> None:
    testbed.peers("a", "b", "c")
    stay = [testbed.start(name) for name in ("a", "b")]
    odd = testbed.start("c", seed=1)
    assert odd.process.wait(PATIENCE_SECONDS) == 7
    testbed.nodes.nodes.remove(odd)
    again = testbed.start("c")
    testbed.wait()
    assert all(metrics(node, "eval")[-1]["when"] == "end" for node in [*stay, again])


def test_peers_that_never_come_are_named(testbed: Testbed) -> None:
    testbed.peers("north", "south")
    node = testbed.start("north", wait=1)
    assert node.process.wait(PATIENCE_SECONDS) == 9
    assert "waited 1 s for peers: south" in node.log_text()


def test_a_port_in_use_is_said_at_once(testbed: Testbed) -> None:
    peers = testbed.peers("north", "south")
    port = int(peers.read_text().splitlines()[0].rpartition(":")[2])
    with socket.socket() as taken:
        taken.bind((LOOPBACK, port))
        taken.listen()
        node = testbed.start("north")
        assert node.process.wait(PATIENCE_SECONDS) == 8
    assert f"cannot listen on {LOOPBACK}:{port}" in node.log_text()


def test_a_folder_in_use_is_refused(testbed: Testbed) -> None:
    testbed.peers("north", "south")
    first = testbed.start("north")
    until((first.directory / "run.json").exists, "the first node's folder")
    second = testbed.nodes.start("south", first.directory, testbed._defaults("south"))
    assert second.process.wait(PATIENCE_SECONDS) == 10
    assert "another node runs in" in second.log_text()


def test_two_signals_end_it_at_once(testbed: Testbed) -> None:
    testbed.peers("north")
    node = testbed.start("north", inner_steps=100_000)
    until(lambda: len(metrics(node, "step")) > 5, "some steps")
    node.process.send_signal(signal.SIGTERM)
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(PATIENCE_SECONDS) in (0, 130)
