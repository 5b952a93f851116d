"""Devices by name, and what a device without float64 changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deca_node.numerics import engine
from deca_node.numerics.device import choose_devices, wide
from deca_node.numerics.exchange import flows, mix, squares
from deca_node.protocol.errors import TrainerError
from tests.numerics.test_trainer_cluster import SETTINGS, run_cluster


def test_a_device_without_float64_trains_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MPS has no float64: figures are summed in float32 there. Here on the CPU; no MPS device was at hand."""
    settings = replace(SETTINGS, rounds=1, max_grad_norm=0.0)
    usual = run_cluster(settings, tmp_path / "usual")
    for module in (engine, mix, squares, flows):
        monkeypatch.setattr(module, "wide", lambda _: torch.float32)
    narrow = run_cluster(settings, tmp_path / "narrow")
    for one, other in zip(usual, narrow, strict=True):
        for left, right in zip(one.trainer.model.parameters(), other.trainer.model.parameters(), strict=True):
            assert torch.equal(left, right), "the sums are figures, and none of them is in the model"
    assert wide(torch.device("mps")) is torch.float32
    assert wide(torch.device("cpu")) is torch.float64


def test_a_missing_mps_device_is_said_in_words() -> None:
    if not torch.backends.mps.is_available():
        with pytest.raises(TrainerError, match="torch sees no MPS device here"):
            choose_devices("mps", "")
