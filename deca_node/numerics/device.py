"""The torch devices that settings name."""

import os

import torch

from deca_node.protocol.errors import TrainerError
from deca_node.protocol.options import devices_of


def wide(device: torch.device) -> torch.dtype:
    """The dtype in which long sums are kept on a device: float64, which MPS does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def choose_device(wanted: str) -> torch.device:
    """The device for a setting; ``auto`` takes a GPU if there is one. Raises TrainerError if the device is missing."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainerError(f"device = {wanted!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise TrainerError(f"device = {wanted!r}, but torch sees no MPS device here")
    return device


def choose_devices(device: str, devices: str) -> tuple[torch.device, ...]:
    """One device per rank, for the settings ``device`` and ``devices``. Raises TrainerError if one is missing."""
    if not devices:
        return (choose_device(device),)
    wanted = devices_of(devices)
    if wanted.cards:
        return tuple(choose_device(f"cuda:{card}") for card in wanted.cards)
    kind = choose_device("auto").type if wanted.kind == "auto" else wanted.kind
    if kind != "cuda":
        return (choose_device(kind),) * max(wanted.count, 1)
    there = torch.cuda.device_count()
    if not there or wanted.count > there:
        raise TrainerError(f"devices = {devices!r}, but torch sees {there} CUDA devices here")
    return tuple(torch.device("cuda", card) for card in range(wanted.count or there))


def share_threads(threads: int, ranks: int) -> None:
    """Give this process its part of so many CPU threads, which ``ranks`` processes share; 0: one per core."""
    if threads or ranks > 1:
        torch.set_num_threads(max((threads or os.cpu_count() or 1) // ranks, 1))
