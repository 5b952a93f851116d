"""The torch device that a setting names."""

import torch

from deca_node.protocol.errors import TrainerError


def choose_device(wanted: str) -> torch.device:
    """The device for a setting; ``auto`` takes a GPU if there is one. Raises TrainerError if the device is missing."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainerError(f"device = {wanted!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return device
