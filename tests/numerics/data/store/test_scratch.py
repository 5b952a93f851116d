"""Arrays that may be larger than memory: in memory, in a file without a name, and where the disk refuses."""

from pathlib import Path

import numpy as np
import pytest

from deca_node.numerics.data.store import scratch
from deca_node.numerics.data.store.scratch import Growing, Scratch
from deca_node.protocol.errors import StorageError


@pytest.mark.parametrize("most", [0, 100, 1 << 20])
@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.dtype([("start", np.int64), ("head", np.int32)])])
def test_an_array_is_what_was_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, dtype: np.dtype
) -> None:
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", most)
    parts = [np.arange(n).astype(dtype) for n in (0, 3, 40, 0, 7)]
    growing = Growing(dtype, Scratch(tmp_path / "folder"))
    for part in parts:
        growing.append(part)
    whole = growing.whole()
    assert whole.dtype == dtype and whole.tolist() == np.concatenate(parts).tolist()
    assert isinstance(whole, np.memmap) == (most < sum(part.nbytes for part in parts))
    assert Scratch(tmp_path / "folder").collect(dtype, parts).tolist() == whole.tolist()


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert Growing(np.int32, Scratch(tmp_path)).whole().tolist() == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 0)
    (tmp_path / "file").write_text("no folder")
    growing = Growing(np.int32, Scratch(tmp_path / "file" / "tokens"))
    with pytest.raises(StorageError, match=r"cannot keep the tokens of the data in .*tokens: .*make room.*TMPDIR"):
        growing.append(np.arange(3))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 0)
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  (what is tested must close it)
    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", lambda **_: full)
    with pytest.raises(StorageError, match="No space left on device"):
        Scratch(tmp_path).collect(np.int32, [np.arange(10), np.arange(1 << 16)])
    assert full.closed
