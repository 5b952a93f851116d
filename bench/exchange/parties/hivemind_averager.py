"""hivemind: a DecentralizedAverager per node, averaging in a group of all nodes with 8-bit compression.

Nodes find their group beforehand, through the library's own delayed trigger, so that only the all-reduce is timed. It
splits the tensors among the peers, who average their parts and send them back. Each number crosses the wire twice at
half the volume, and at the end all nodes have the mean.
"""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hivemind
import torch
from hivemind.averaging.control import AveragingStage
from hivemind.compression import Uniform8BitQuantization

from bench.exchange import content
from bench.exchange.party import Job, main

GROUP_SECONDS_MAX = 60.0
AVERAGE_SECONDS_MAX = 240.0


class Hivemind:
    """A DHT node and an averager."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._own = [torch.from_numpy(array) for array in content.arrays(content.read(job.contents[job.party]))]
        self._dht = start_dht(job)
        self._averager = hivemind.DecentralizedAverager(
            [tensor.clone() for tensor in self._own],
            self._dht,
            start=True,
            prefix="exchange",
            target_group_size=len(job.contents),
            min_group_size=len(job.contents),
            compression=Uniform8BitQuantization(),
        )
        self._step: Any = None
        self.facts = {name: version(name) for name in ("hivemind", "torch")}

    def prepare(self) -> None:
        """Restore our own numbers, and find the group."""
        with self._averager.get_tensors() as tensors:
            for tensor, own in zip(tensors, self._own, strict=True):
                tensor.copy_(own)
        self._step = self._averager.step(wait=False, require_trigger=True, timeout=AVERAGE_SECONDS_MAX)
        deadline = time.monotonic() + GROUP_SECONDS_MAX
        while self._step.stage is not AveragingStage.AWAITING_TRIGGER:
            assert time.monotonic() < deadline, "hivemind found no group"
            time.sleep(0.05)

    def exchange(self) -> None:
        """One all-reduce."""
        self._step.allow_allreduce()
        gathered = self._step.result(timeout=AVERAGE_SECONDS_MAX)
        assert len(gathered) == len(self._job.contents), f"averaged with {len(gathered)} nodes only"

    def check(self) -> float:
        """The error against the exact mean of all nodes."""
        with self._averager.get_tensors() as tensors:
            return content.error([tensor.numpy() for tensor in tensors], list(self._job.contents))

    def close(self) -> None:
        """Stop the processes of the averager and of the DHT."""
        self._averager.shutdown()
        self._dht.shutdown()


def start_dht(job: Job) -> hivemind.DHT:
    """The first node gives the others its address in a file."""
    known = Path(job.folder) / "first-node"
    if job.party == 0:
        dht = hivemind.DHT(host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_auto_relay=False, use_relay=False, start=True)
        lines = "\n".join(str(address) for address in dht.get_visible_maddrs())
        aside = known.with_suffix(".new")
        aside.write_text(lines, encoding="utf-8")
        aside.rename(known)
        return dht
    while not known.exists():
        time.sleep(0.05)
    first = known.read_text(encoding="utf-8").split()
    return hivemind.DHT(
        initial_peers=first, host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_auto_relay=False, use_relay=False, start=True
    )


if __name__ == "__main__":
    main(Hivemind)
