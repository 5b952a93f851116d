"""A testbed: four nodes on this machine that train a toy model, each with its page, until Ctrl-C.

::

    FOLDER/run.toml                   the settings of the run
    FOLDER/peers.txt                  the addresses of the nodes
    FOLDER/NAME.toml, NAME.log        one node's own settings, and its log
    FOLDER/NAME/                      the folder of one node
    FOLDER/model, FOLDER/data/        the model and the private data

Every node is just `deca-node start --run FOLDER/run.toml --config FOLDER/NAME.toml`, so a person can kill one and
restart it with that line from any terminal.
"""

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.sources import changed_as_toml
from deca_node.lab.demo import demo
from deca_node.lab.demo.inputs import make_inputs
from deca_node.lab.rigs.processes import (
    LOOPBACK,
    TICK_SECONDS,
    LocalNodes,
    NodeProcess,
    usual_ports,
    write_peers,
)
from deca_node.protocol.agreed.run import RunSettings

NAMES = ("north", "east", "south", "west")
HTTP_PORT = 9641
"""The port of the first node's page. The other pages have the next free ports."""
PEERS_PORT = 9651
"""The same for the ports at which the nodes listen for each other."""
STOP_SECONDS = 60.0

RUN = dataclasses.replace(demo.RUN, run_name="testbed", rounds=20, inner_steps=20, sequence_length=64)
RECIPE = dataclasses.replace(demo.RECIPE, steps=10, hidden=64, layers=6)
"""A small model with little training, so that the run shows progress. The run takes some minutes."""


@dataclass(frozen=True)
class Testbed:
    """The folder of a testbed, and the ports of the nodes' pages on this machine."""

    folder: Path
    ports: Sequence[int]

    def page(self, name: str) -> str:
        """The address of a node's page."""
        return f"http://{LOOPBACK}:{self.ports[NAMES.index(name)]}/"

    def command(self, name: str) -> str:
        """The command that starts one node from the working directory."""
        return f"deca-node start --run {self.folder / 'run.toml'} --config {self.folder / f'{name}.toml'}"


def prepare(folder: Path, run: RunSettings = RUN) -> Testbed:
    """Make all files that do not exist yet, so that a testbed that was stopped continues."""
    folder.mkdir(parents=True, exist_ok=True)
    model = make_inputs(folder, NAMES, RECIPE).path
    peers, run_file = folder / "peers.txt", folder / "run.toml"
    if not peers.exists():
        write_peers(peers, NAMES, usual_ports(PEERS_PORT, len(NAMES)))
    if not run_file.exists():
        run_file.write_text(changed_as_toml(run), encoding="utf-8")
    ports = usual_ports(HTTP_PORT, len(NAMES))
    for name, port in zip(NAMES, ports, strict=True):
        settings = NodeSettings(
            name=name,
            dir=str(folder / name),
            peers=str(peers),
            model=str(model),
            data=str(folder / "data" / f"{name}.jsonl"),
            insecure=1,
            network="local",
            threads=1,
            checkpoint_every=10,
            http=f"{LOOPBACK}:{port}",
            after_run="stay",
        )
        (folder / f"{name}.toml").write_text(changed_as_toml(settings), encoding="utf-8")
    return Testbed(folder, ports)


def start(testbed: Testbed, nodes: LocalNodes) -> None:
    """Start all nodes."""
    for name in NAMES:
        flags = {"--run": testbed.folder / "run.toml", "--config": testbed.folder / f"{name}.toml"}
        nodes.start(name, testbed.folder / name, flags)


def watch(nodes: LocalNodes, told: Callable[[NodeProcess, int], None]) -> None:
    """Wait until no process is left. ``told`` is called for each that ends, with its exit code."""
    left = list(nodes.nodes)
    while left:
        time.sleep(TICK_SECONDS)
        for node in left[:]:
            if (code := node.process.poll()) is not None:
                left.remove(node)
                told(node, code)


def stop(nodes: LocalNodes) -> None:
    """Send SIGTERM to the remaining processes, and wait until they have written their checkpoints."""
    left = [node for node in nodes.nodes if node.process.poll() is None]
    for node in left:
        node.process.send_signal(signal.SIGTERM)
    for node in left:
        node.process.wait(STOP_SECONDS)
