"""What a person sees of running nodes, and asks of them: real processes, real sockets."""

import urllib.error
import urllib.request
from collections.abc import Callable

from deca_node.cli.main import main
from deca_node.daemon.status.facts import Status
from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from deca_node.protocol.errors import NoAnswerError
from tests.e2e.testbed import Testbed, ask, look
from tests.patience import PATIENCE_SECONDS

LONG = {"rounds": 50, "inner_steps": 100}
"""More than any test waits for."""


def trains_with(peer: str) -> Callable[[Status], bool]:
    return lambda status: any(row.name == peer and row.edge == "open" and row.rtt for row in status.peers)


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=PATIENCE_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def test_a_node_is_watched_paused_and_stopped(testbed: Testbed) -> None:
    testbed.peers("north", "south")
    north, south = (testbed.start(name, **LONG) for name in ("north", "south"))
    seen = look(north, trains_with("south"), "an edge to south")
    assert (seen.phase, seen.started, seen.ready, seen.members) == ("visiting", True, True, {"alive": 2})
    for verb in ("pause", "resume"):
        ask(north, verb)  # A pause that has not begun yet can be taken back.
    done_before = seen.position.done if seen.position else 0
    look(north, lambda status: bool(status.position and status.position.done > done_before + 1), "it to go on")
    ask(north, "pause")
    paused = look(north, lambda status: status.phase == "paused", "the pause")
    assert paused.position and paused.checkpoint.age_seconds is not None and paused.steps_per_second is None
    done = look(south, lambda status: status.position is not None, "south").position
    assert done is not None
    look(south, lambda status: bool(status.position and status.position.done > done.done), "south to go on alone")
    assert main(["export", "--dir", str(north.directory), str(testbed.folder / "halfway")]) == 0
    ask(north, "resume")
    look(north, lambda status: bool(status.position and status.position.done > paused.position.done), "more steps")
    for node in (north, south):
        ask(node, "stop")
        assert node.process.wait(PATIENCE_SECONDS) == 0
    assert main(["status", "--dir", str(north.directory)]) == NoAnswerError.exit_code
    assert main(["report", str(north.directory), str(south.directory), "--out", str(testbed.folder / "both.html")]) == 0


def test_probes_and_metrics_of_a_real_node(testbed: Testbed) -> None:
    testbed.peers("north", "south")
    (port,) = free_ports(1)
    north = testbed.start("north", http=f"{LOOPBACK}:{port}", **LONG)
    look(north, lambda status: status.phase == "gathering", "the model")
    assert answer(port, "/livez") == (200, "ok\n")
    assert answer(port, "/startupz")[0] == 200
    code, why = answer(port, "/readyz")
    assert code == 503 and why.startswith("gathering: peers: ")
    testbed.start("south", **LONG)
    look(north, trains_with("south"), "an edge to south")
    assert answer(port, "/readyz")[0] == 200
    _, text = answer(port, "/metrics")
    assert 'deca_peer_up{peer="south"} 1.0' in text
    assert 'deca_peer_received_bytes_total{kind="keyframe",peer="south"}' in text
