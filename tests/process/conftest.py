"""A folder in which a node can be started as far as its trainer."""

from pathlib import Path

import pytest

from deca_node.lab.rigs.processes import free_ports


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Everything that a start checks before it starts a trainer."""
    (tmp_path / "model").mkdir()
    (tmp_path / "data.jsonl").write_text("")
    (tmp_path / "peers.txt").write_text(f"north@127.0.0.1:{free_ports(1)[0]}\n")
    return tmp_path
