"""The server of the Flower app, and the party of the measurement: a round is an exchange."""

import time
from importlib.metadata import version
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from bench.exchange import content
from bench.exchange.party import Job, perform

CLIENTS_SECONDS_MAX = 60.0

app = ServerApp()


class Round:
    """One node that sends its parameters to all clients, and takes theirs."""

    def __init__(self, job: Job, grid: Grid) -> None:
        self._job = job
        self._grid = grid
        self._own = content.arrays(content.read(job.contents[0]))
        self._arrived: list[list[content.Floats]] = []
        deadline = time.monotonic() + CLIENTS_SECONDS_MAX
        while len(list(grid.get_node_ids())) < len(job.contents) - 1:
            assert time.monotonic() < deadline, "the clients did not come"
            time.sleep(0.1)
        self.facts = {"flwr": version("flwr")}

    def prepare(self) -> None:
        """Forget the last round."""
        self._arrived.clear()

    def exchange(self) -> None:
        """Pack, send to all clients, wait for all, unpack."""
        parameters = RecordDict({"parameters": ArrayRecord(self._own)})
        nodes = self._grid.get_node_ids()
        messages = [Message(content=parameters, message_type="train", dst_node_id=node) for node in nodes]
        for reply in self._grid.send_and_receive(messages):
            self._arrived.append(reply.content["parameters"].to_numpy_ndarrays())

    def check(self) -> float:
        """The error: every client returns the numbers that it got."""
        assert len(self._arrived) == len(self._job.contents) - 1
        return max(content.error(arrays, [self._job.contents[0]]) for arrays in self._arrived)

    def close(self) -> None:
        """Do nothing. Flower ends the run when this app's main function ends."""


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Be a party until the parent ends the measurement."""
    job = Job.read(Path(str(context.run_config["job"])).read_text(encoding="utf-8"))
    perform(job, lambda job: Round(job, grid))
