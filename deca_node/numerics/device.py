"""The device that a setting names, as torch knows it."""

import torch

from deca_node.protocol.errors import TrainerError


def choose_device(wanted: str) -> torch.device:
    """``auto`` takes a GPU where there is one. Raises TrainerError where the wanted one is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainerError(f"device = {wanted!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return device
