"""The sequences of a store are those that the node had before it had stores, bit by bit."""

from pathlib import Path

import pytest

from deca_node.numerics.data import packing, sequences
from deca_node.numerics.data.store import scratch
from tests.numerics.data.store.corpora import loaded, seen, write

SEEN = {
    ("texts", "isolated"): ("94b838b37282ac0a", "73c97a55b60f8d2c", "0c66241f5fb51214"),
    ("texts", "none"): ("47107f0620ad2dbd", "6d2034108e7c48b2", "731919a338443416"),
    ("texts", "concatenated"): ("fdb9cafb12dfd31a", "6ec1d2c35fd6f56e", "638630f1311d1e4e"),
    ("few long texts", "isolated"): ("47d2025d7afb7dc4", "ba7770f8d137f734", "015b423354999183"),
    ("few long texts", "none"): ("a255ee2b254b3c2d", "47838a78d2f7bc36", "015b423354999183"),
    ("few long texts", "concatenated"): ("770822f0b40cf384", "40aa8900feb53385", "848339292238a530"),
    ("prompts", "isolated"): ("13e2ae07ca61caa6", "6ca2825df5d7145d", "c70477b142c86fe4"),
    ("prompts", "none"): ("f80e814209969e10", "fef8dd95138e8f2f", "fef8dd95138e8f2f"),
    ("prompts", "concatenated"): ("bbe37babdca8438a", "c46a2ac40dfafebe", "941fa5ee9114713e"),
    ("mixed", "isolated"): ("37ed49757a26b964", "8410a162362520cd", "5326f6c4b2cee625"),
    ("mixed", "none"): ("6b65c26c9d071ee2", "71a810bb7f3c813d", "cd93a0a1b2aa3b5a"),
    ("mixed", "concatenated"): ("3fc18174bb446f7d", "a09410af10efbce7", "8cd2c45efe56e90d"),
}
"""Hashes of what a trainer sees, taken from the release before stores: as they are, with BOS, with BOS and private."""
TRUNCATED = {"keep-start": "65c581fe1cc522cb", "drop": "512df10f948e3a66"}
"""The same of mixed records with BOS, isolated."""


@pytest.fixture(params=["memory", "disk", "disk in small chunks"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """Where the tokens lie. In small chunks every array lies in files, and everything is done in many steps."""
    if request.param == "disk in small chunks":
        monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 0)
        monkeypatch.setattr(scratch, "CHUNK", 7)
        monkeypatch.setattr(sequences, "COUNTED_TOGETHER", 16)
        monkeypatch.setattr(packing, "DIVIDED_TOGETHER", 3)
    return None if request.param == "memory" else tmp_path / "node" / "tokens"


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("kind", "how"), SEEN)
def test_batches_are_those_of_earlier_releases(
    kind: str, how: str, bos: bool, tmp_path: Path, store: Path | None
) -> None:
    assert seen(loaded(write(tmp_path, kind), how, bos=bos, store=store)) == SEEN[kind, how][bos]


@pytest.mark.parametrize(("kind", "how"), SEEN)
def test_private_batches_are_those_of_earlier_releases(kind: str, how: str, tmp_path: Path, store: Path | None) -> None:
    assert seen(loaded(write(tmp_path, kind), how, bos=True, private=True, store=store)) == SEEN[kind, how][2]


@pytest.mark.parametrize("truncation", TRUNCATED)
def test_truncated_batches_are_those_of_earlier_releases(truncation: str, tmp_path: Path, store: Path | None) -> None:
    path = write(tmp_path, "mixed")
    assert seen(loaded(path, "isolated", bos=True, truncation=truncation, store=store)) == TRUNCATED[truncation]
