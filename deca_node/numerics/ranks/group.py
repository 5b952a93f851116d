"""The processes of one trainer as a group of torch.distributed.

Two groups of the same processes exist. ``words`` runs on gloo, and a rank waits on it for the next order as long as it
takes, without using a core. ``tensors`` runs on NCCL for CUDA and on gloo for the CPU, and a rank that is missing there
for half an hour is given up. The ranks find each other through a file that only this user may read, and their
connections stay on the loopback interface. Ranks on several servers find each other through a port of rank 0's, at the
address that the settings name, and their connections stay on that address's interface. GLOO_SOCKET_IFNAME and
NCCL_SOCKET_IFNAME may name others.

Sources: torch.distributed (docs.pytorch.org/docs/stable/distributed.html).
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore, Store, TCPStore  # type: ignore[attr-defined]

from deca_node.protocol.errors import RankLostError, TrainerError

Meeting = Store
"""Where the ranks of a trainer find each other."""
WORDS_TIMEOUT, TENSORS_TIMEOUT = timedelta(days=3650), timedelta(minutes=30)
TCP = "tcp://"
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
JOIN_TIMEOUT = timedelta(minutes=30)
"""The longest wait for ranks that still load the model."""


def open_store(ranks: int) -> tuple[Meeting, str]:
    """The meeting place of so many ranks, and its folder, which only this user may enter. Rank 0 removes it."""
    folder = tempfile.mkdtemp(prefix="deca-ranks-")
    return find_store(folder, ranks), folder


def open_port(ranks: int, host: str, port: int, listening: int) -> tuple[Meeting, str]:
    """The meeting place of ranks on several servers, and its name for :func:`find_store`; ``listening`` is the
    descriptor of a socket that listens there."""
    store = TCPStore(host, port, ranks, True, JOIN_TIMEOUT, wait_for_workers=False, master_listen_fd=listening)
    return store, f"{TCP}[{host}]:{port}"


def find_store(place: str, ranks: int) -> Meeting:
    """The meeting place that rank 0 has opened. Raises RankLostError."""
    with others_lost():
        if host := host_of(place):
            return TCPStore(host, int(place.rpartition(":")[2]), ranks, False, JOIN_TIMEOUT)
        store = FileStore(str(Path(place) / "meeting"), ranks)
        store.set_timeout(JOIN_TIMEOUT)
        return store


def host_of(place: str) -> str:
    """The address at which ranks on several servers meet; empty if all are on one."""
    return place.removeprefix(TCP).rpartition(":")[0].strip("[]") if place.startswith(TCP) else ""


class Group:
    """This process as rank ``rank`` of ``size``, with its device."""

    def __init__(self, store: Meeting, rank: int, size: int, device: torch.device) -> None:
        """Wait until all ranks are here. Raises RankLostError if one does not come, and TrainerError if this torch
        cannot join devices of this kind."""
        self.rank, self.size, self.device = rank, size, device
        backend = _backend(device)
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, LOOPBACK)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with others_lost():
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=WORDS_TIMEOUT)
            self.tensors = dist.new_group(backend=backend, timeout=TENSORS_TIMEOUT)
            """The group of the ranks' devices."""

    def tell(self, word: Any, numbers: Tensor) -> None:
        """Give a word of JSON and ``numbers`` (int64 [n]) to all other ranks."""
        text = torch.frombuffer(bytearray(json.dumps(word).encode()), dtype=torch.uint8)
        with others_lost():
            dist.broadcast(torch.tensor([len(text), len(numbers)]), 0)
            dist.broadcast(text, 0)
            if len(numbers):
                dist.broadcast(numbers, 0)

    def hear(self) -> tuple[Any, Tensor]:
        """Wait for the next word of rank 0, and the numbers with it."""
        sizes = torch.zeros(2, dtype=torch.int64)
        with others_lost():
            dist.broadcast(sizes, 0)
            text = torch.empty(int(sizes[0]), dtype=torch.uint8)
            numbers = torch.empty(int(sizes[1]), dtype=torch.int64)
            dist.broadcast(text, 0)
            if len(numbers):
                dist.broadcast(numbers, 0)
        return json.loads(text.numpy().tobytes()), numbers

    @torch.no_grad()
    def renew(self, parameters: Sequence[Tensor]) -> None:
        """Give all ranks rank 0's bits of these tensors, of any dtype."""
        for parameter in parameters:
            whole = parameter.detach().contiguous()
            with others_lost():
                dist.broadcast(_bytes(whole), 0, group=self.tensors)
            if whole.data_ptr() != parameter.data_ptr():
                parameter.copy_(whole)

    def sum_up(self, gradient: Tensor) -> None:
        """Sum a float32 [elements] over all ranks, at rank 0; at the others it is undefined afterwards."""
        with others_lost():
            dist.reduce(gradient, 0, group=self.tensors)

    def rows(self, row: Tensor) -> Tensor:
        """The rows of all ranks, float64 [ranks, n] on the CPU, of one float64 [n] from each."""
        own = row.to(self.device)
        found = [torch.empty_like(own) for _ in range(self.size)]
        with others_lost():
            dist.all_gather(found, own, group=self.tensors)
        return torch.stack(found).cpu()

    def give(self, tensor: Tensor, rank: int) -> None:
        """Send a contiguous tensor to one other rank, which takes it; nothing if it is empty."""
        if tensor.numel():
            with others_lost():
                dist.send(_bytes(tensor), rank, group=self.tensors)

    def take(self, tensor: Tensor, rank: int) -> None:
        """Fill a contiguous tensor with what one other rank gives; nothing if it is empty."""
        if tensor.numel():
            with others_lost():
                dist.recv(_bytes(tensor), rank, group=self.tensors)

    def leave(self) -> None:
        """End the group."""
        dist.destroy_process_group()


def _bytes(tensor: Tensor) -> Tensor:
    """The same memory as bytes: gloo knows fewer dtypes than torch."""
    return tensor.detach().view(-1).view(torch.uint8)


def _backend(device: torch.device) -> str:
    if device.type == "cpu":
        return "gloo"
    if device.type == "cuda" and dist.is_nccl_available():
        return "nccl"
    raise TrainerError(f"this torch cannot join several ranks on {device.type}; leave devices out, and set device")


@contextmanager
def others_lost() -> Iterator[None]:
    """What torch.distributed raises within means that another rank has gone, or hangs."""
    try:
        yield
    except RuntimeError as problem:
        raise _lost(problem) from problem


@contextmanager
def others_needed() -> Iterator[None]:
    """The same of passes through a sharded model, which fail for other reasons, too."""
    try:
        yield
    except RuntimeError as problem:
        # gloo has no errors of its own kind.
        if isinstance(problem, dist.DistError) or "gloo" in str(problem):
            raise _lost(problem) from problem
        raise


def _lost(problem: RuntimeError) -> RankLostError:
    first = (str(problem).strip().splitlines() or [""])[0]
    return RankLostError(f"a rank of the trainer does not answer the others: {first}")
