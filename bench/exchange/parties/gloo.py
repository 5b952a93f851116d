"""torch.distributed with gloo: ``isend`` and ``irecv`` of one float32 tensor per neighbour."""

import os
from pathlib import Path

import torch
import torch.distributed as dist

from bench.exchange import content
from bench.exchange.party import Job, main


class Gloo:
    """One rank of the process group."""

    def __init__(self, job: Job) -> None:
        # Without this, gloo uses the interface of the host's name, which may not be loopback.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if Path("/sys/class/net/lo").exists() else "lo0")
        dist.init_process_group(
            "gloo", init_method=f"file://{job.folder}/rendezvous", rank=job.party, world_size=len(job.contents)
        )
        self._job = job
        self._own = torch.from_numpy(content.read(job.contents[job.party]))
        self._arrived = {peer: torch.empty_like(self._own) for peer in job.neighbours}
        self.facts = {"torch": str(torch.__version__)}

    def prepare(self) -> None:
        """Wait for all ranks."""
        dist.barrier()

    def exchange(self) -> None:
        """Exchange with all neighbours at once."""
        works = [dist.irecv(self._arrived[peer], src=peer) for peer in self._job.neighbours]
        works += [dist.isend(self._own, dst=peer) for peer in self._job.neighbours]
        for work in works:
            assert work is not None
            work.wait()

    def check(self) -> float:
        """The error, which is 0."""
        pairs = ((got.numpy(), self._job.contents[peer]) for peer, got in self._arrived.items())
        return max(content.error([got], [path]) for got, path in pairs)

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Gloo)
