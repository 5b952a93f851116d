"""A folder with a small Llama for every test of this room that asks for one."""

from pathlib import Path

import pytest
import torch

from tests.numerics.model.small_models import (
    folder_of,
    llama,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return folder_of(llama(), tmp_path / "llama")
