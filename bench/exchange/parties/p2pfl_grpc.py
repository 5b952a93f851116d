"""p2pfl: a model is encoded with its int8 compression, sent with its gRPC protocol, and decoded by a command.

These are the calls of its own gossip, without the pauses between them.
"""

import os
import queue
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

# It makes a folder of logs where it is started, and fails if another process does so at the same moment.
FOLDER = Path(sys.argv[1]).with_suffix("")
FOLDER.mkdir()
os.chdir(FOLDER)

from p2pfl.settings import Settings  # noqa: E402

# The loggers read these at import. Ray would start a cluster to collect log lines.
Settings.general.DISABLE_RAY = True
Settings.general.LOG_LEVEL = "ERROR"
Settings.general.GRPC_TIMEOUT = 240.0

from p2pfl.communication.commands.command import Command  # noqa: E402
from p2pfl.communication.protocols.protobuff.grpc import GrpcCommunicationProtocol  # noqa: E402
from p2pfl.learning.frameworks.p2pfl_model import P2PFLModel  # noqa: E402

from bench.exchange import content  # noqa: E402
from bench.exchange.party import Job, main  # noqa: E402

ARRIVE_SECONDS_MAX = 100.0
COMPRESSION = {"ptq": {"dtype": "int8"}}


class Weights(P2PFLModel):  # type: ignore[misc]
    """A model that consists of its parameters. The library needs no more of a framework's adapter."""

    def get_parameters(self) -> list[content.Floats]:
        """The arrays themselves."""
        parameters: list[content.Floats] = self.model
        return parameters

    def set_parameters(self, params: Any) -> None:
        """Set parameters, from arrays or from the result of ``encode_parameters``."""
        self.model = self.decode_parameters(params)[0] if isinstance(params, bytes) else params


class TakeModel(Command):  # type: ignore[misc]
    """The command at the receiver, on a thread of its server."""

    def __init__(self, arrived: "queue.Queue[tuple[str, Weights]]") -> None:
        self._arrived = arrived

    @staticmethod
    def get_name() -> str:
        """The name of the command."""
        return "take_model"

    def execute(self, source: str, round: int, weights: bytes | None = None, **_: Any) -> None:  # noqa: A002
        """Decode the model, and hand it over."""
        self._arrived.put((source, Weights(None, params=weights)))


class P2pfl:
    """A started protocol, connected to its neighbours."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model = Weights(content.arrays(content.read(job.contents[job.party])), compression=COMPRESSION)
        self._arrived: queue.Queue[tuple[str, Weights]] = queue.Queue()
        self._theirs: dict[str, Weights] = {}
        self._protocol = GrpcCommunicationProtocol([TakeModel(self._arrived)])
        self._protocol.set_addr(address(job, job.party))
        self._protocol.start()
        self._connected = False
        self.facts = {name: version(name) for name in ("p2pfl", "grpcio")}

    def prepare(self) -> None:
        """Connect. Every server is up by now, and of two neighbours the one with the larger number dials."""
        for peer in self._job.neighbours:
            if not self._connected and peer < self._job.party:
                assert self._protocol.connect(address(self._job, peer)), f"p2pfl could not connect to node {peer}"
        self._connected = True
        self._theirs.clear()

    def exchange(self) -> None:
        """Encode, send to all neighbours at once, and wait for theirs."""
        encoded = self._model.encode_parameters()
        message = self._protocol.build_weights(TakeModel.get_name(), 0, encoded, [], 1)
        threads = [
            threading.Thread(target=self._protocol.send, args=(address(self._job, peer), message, True))
            for peer in self._job.neighbours
        ]
        for thread in threads:
            thread.start()
        for _ in self._job.neighbours:
            source, theirs = self._arrived.get(timeout=ARRIVE_SECONDS_MAX)
            self._theirs[source] = theirs
        for thread in threads:
            thread.join()

    def check(self) -> float:
        """The largest error of the neighbours' models."""
        return max(
            content.error(self._theirs[address(self._job, peer)].get_parameters(), [self._job.contents[peer]])
            for peer in self._job.neighbours
        )

    def close(self) -> None:
        """Leave the network."""
        self._protocol.stop()


def address(job: Job, party: int) -> str:
    """A node's address, which is its name as well."""
    host, port = job.peers[party]
    return f"{host}:{port}"


if __name__ == "__main__":
    main(P2pfl)
