"""Two real nodes that train together on this machine and answer HTTP, for the measurements of serving."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deca_node.lab.demo.inputs import make_inputs
from deca_node.lab.demo.toy_model import Recipe
from deca_node.lab.rigs.processes import LOOPBACK, LocalNodes, NodeProcess, free_ports, write_peers

NAMES = ("north", "south")
START_SECONDS = 900.0
POLL_SECONDS = 0.5
ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Served:
    """One node and its port for HTTP."""

    process: NodeProcess
    port: int

    def get(self, path: str) -> tuple[float, int]:
        """Send a request on a new connection, as probes do. Returns the seconds until the whole answer has arrived, and
        its bytes.

        Raises RuntimeError if the status is not 200, and OSError if there is no answer.
        """
        began = time.perf_counter()
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path} answered {response.status}: {body[:200].decode(errors='replace')}")
        return time.perf_counter() - began, len(body)

    @property
    def steps(self) -> int:
        """The number of finished steps."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/v1/status")
            position = json.loads(connection.getresponse().read())["position"]
        finally:
            connection.close()
        return int(position["done"]) if position else 0


def start_pair(folder: Path, nodes: LocalNodes, recipe: Recipe, flags: dict[str, object]) -> tuple[Served, ...]:
    """Start both nodes, and return once each has done its first step. Raises RuntimeError if one does not get there."""
    model = make_inputs(folder, NAMES, recipe)
    peers = write_peers(folder / "peers.txt", NAMES)
    served = []
    for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True):
        given = {
            "--insecure": True,
            "--peers": peers,
            "--model": model.path,
            "--data": folder / "data" / f"{name}.jsonl",
            "--threads": 1,
            "--trainer-priority": "idle",
            "--rounds": 10_000,
            "--eval-every": "never",
            "--http": f"{LOOPBACK}:{port}",
        }
        served.append(Served(nodes.start(name, folder / name, given | flags), port))
    for each in served:
        _until(lambda each=each: each.steps > 0, each.process)  # type: ignore[misc]
    return tuple(served)


def _until(condition: Callable[[], bool], node: NodeProcess) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if condition():
                return
        except OSError:
            pass  # The node does not listen yet.
        if node.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{node.name} did not start to train:\n{node.log_text(20)}")
        time.sleep(POLL_SECONDS)
