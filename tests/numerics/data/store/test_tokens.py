"""Stores of tokens: when one is used again, what an interruption leaves, and what a full disk does."""

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from deca_node.numerics.data import tokenizing
from deca_node.numerics.data.formats.sources import Reading
from deca_node.numerics.data.store import writing
from deca_node.numerics.data.store.tokens import Tokenized, Tokenizing
from deca_node.numerics.data.tokenizing import RecordTokenizer
from deca_node.protocol.errors import DataError, StorageError
from tests.numerics.data.byte_tokens import MARKED_TEMPLATE, PLAIN_TEMPLATE, byte_tokenizer
from tests.numerics.data.store.corpora import CORPORA, write


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each call of the tokenizer got, in small calls."""
    monkeypatch.setattr(tokenizing, "_CALL_CHARACTERS", 300)
    counts: list[int] = []
    encode = RecordTokenizer.encode

    def counted(self: RecordTokenizer, records: list[Any], *more: Any) -> Any:
        counts.append(len(records))
        return encode(self, records, *more)

    monkeypatch.setattr(RecordTokenizer, "encode", counted)
    return counts


def stored(
    data: Path, folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, reading: Reading | None = None
) -> Tokenized:
    tokenizer = tokenizer or byte_tokenizer(PLAIN_TEMPLATE)
    return Tokenizing([data], tokenizer, bad_records="skip", reading=reading).stored(folder)


def contents(found: Tokenized) -> list[Any]:
    line = found.line
    return [line.ids.tolist(), line.trained.tolist(), line.starts.tolist(), line.texts.tolist(), line.learnt.tolist()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- when a store is used again -----------------------------------------------------------------------


def test_tokens_are_written_once(tmp_path: Path, calls: list[int]) -> None:
    data, folder = write(tmp_path, "mixed"), tmp_path / "tokens"
    first = stored(data, folder)
    tokenized = len(calls)
    again = stored(data, folder)
    assert first.fresh and not again.fresh and len(calls) == tokenized > 1
    assert contents(first) == contents(again) and first.counted == again.counted
    assert first.counted.skipped == 1 and first.counted.sentences[0].endswith("not a number")


def test_the_tokens_are_those_that_memory_would_hold(tmp_path: Path) -> None:
    data = write(tmp_path, "mixed")
    tokens = Tokenizing([data], byte_tokenizer(PLAIN_TEMPLATE), bad_records="skip").in_memory()
    assert contents(tokens) == contents(stored(data, tmp_path / "tokens"))


CHANGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "template": lambda data: {"tokenizer": byte_tokenizer(MARKED_TEMPLATE)},
    "vocabulary": lambda data: {"tokenizer": byte_tokenizer(PLAIN_TEMPLATE, specials=["<more>"])},
    "BOS": lambda data: {"tokenizer": byte_tokenizer(PLAIN_TEMPLATE, bos=True)},
    "format": lambda data: {"reading": Reading("jsonl")},
    "data": lambda data: {"data": appended(data)},
}


def appended(data: Path) -> Path:
    with data.open("a") as file:
        file.write('{"text": "one more"}\n')
    return data


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_tokens_depend_on_makes_another_store(tmp_path: Path, what: str) -> None:
    """The stale one is removed, so that a folder holds the tokens of its data once."""
    data, folder = write(tmp_path, "texts"), tmp_path / "tokens"
    stored(data, folder)
    before = names(folder)
    assert stored(**{"data": data, "folder": folder, **CHANGES[what](data)}).fresh
    assert len(names(folder)) == 1 and names(folder) != before


def test_the_name_of_a_file_and_its_time_do_not_matter(tmp_path: Path) -> None:
    data, folder = write(tmp_path, "texts"), tmp_path / "tokens"
    stored(data, folder)
    os.utime(data, (1, 1))
    assert not stored(data.rename(tmp_path / "other.jsonl"), folder).fresh


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = write(tmp_path, "texts"), tmp_path / "tokens"
    stored(data, folder)
    monkeypatch.setattr("deca_node.numerics.data.store.key.sum_file", lambda path: pytest.fail("it was read"))
    assert not stored(data, folder).fresh


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = write(tmp_path, "texts"), tmp_path / "tokens"
    encode = RecordTokenizer.encode

    def while_reading(self: RecordTokenizer, *given: Any) -> Any:
        appended(data)
        return encode(self, *given)

    monkeypatch.setattr(RecordTokenizer, "encode", while_reading)
    with pytest.raises(
        DataError, match=r"data\.jsonl: the file changed while it was read; start again when it is whole"
    ):
        stored(data, folder)
    assert all(name.endswith(".partial") for name in names(folder))


# --- interruptions ------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("kind", CORPORA)
@pytest.mark.parametrize("survives", [1, 4, 9])
def test_an_interrupted_writing_goes_on(
    kind: str, survives: int, tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash at any call, what the journal does not vouch for is tokenized again, and nothing else."""
    data, folder = write(tmp_path, kind), tmp_path / "tokens"
    whole = contents(stored(data, tmp_path / "apart"))
    uninterrupted = len(calls)
    monkeypatch.setattr(writing, "TOKENS_BETWEEN", 1000)
    calls.clear()
    encode = RecordTokenizer.encode

    def crashing(self: RecordTokenizer, *given: Any) -> Any:
        if len(calls) == survives:
            raise Crash
        return encode(self, *given)

    with monkeypatch.context() as broken:
        broken.setattr(RecordTokenizer, "encode", crashing)
        with contextlib.suppress(Crash):
            stored(data, folder)
    kept = list(folder.glob("*.partial/journal.json"))
    calls.clear()
    found = stored(data, folder)
    assert contents(found) == whole
    assert found.counted == stored(data, tmp_path / "apart").counted
    assert len(calls) < uninterrupted or not kept, "a part of the work is kept"
    assert kept or survives < 9 or uninterrupted < 9


def test_what_follows_the_journal_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]) -> None:
    """A crash may leave columns of any length behind the place that the journal vouches for."""
    data, folder = write(tmp_path, "prompts"), tmp_path / "tokens"
    whole = contents(stored(data, tmp_path / "apart"))
    monkeypatch.setattr(writing, "TOKENS_BETWEEN", 500)
    monkeypatch.setattr("deca_node.numerics.data.store.tokens.write_file", fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        stored(data, folder)
    monkeypatch.undo()
    (partial,) = folder.iterdir()
    for number, name in enumerate(("ids", "trained", "starts", "texts", "learnt")):
        with (partial / name).open("ab") as file:
            file.write(b"x" * (number + 3))
    assert contents(stored(data, folder)) == whole and len(names(folder)) == 1


@pytest.mark.parametrize("journal", ["", "{}", "[]", '{"tokens": "many"}'])
def test_a_damaged_journal_begins_anew(tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = write(tmp_path, "texts"), tmp_path / "tokens"
    whole = contents(stored(data, tmp_path / "apart"))
    with monkeypatch.context() as broken:
        broken.setattr("deca_node.numerics.data.store.tokens.write_file", fails(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            stored(data, folder)
    (partial,) = folder.iterdir()
    (partial / "journal.json").write_text(journal)
    assert contents(stored(data, folder)) == whole


# --- the disk -----------------------------------------------------------------------------------------


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = write(tmp_path, "texts"), tmp_path / "tokens"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("deca_node.numerics.data.store.tokens.write_file", fails(full))
    with pytest.raises(
        StorageError, match=r"cannot keep the tokens of the data in .*tokens: No space left on device; make"
    ):
        stored(data, folder)


def test_bad_records_end_the_writing_unless_they_are_skipped(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"text": "good"}) + "\n" + json.dumps({"text": Random(0).random()}) + "\n")
    with pytest.raises(DataError, match=r"data\.jsonl line 2: "):
        Tokenizing([data], byte_tokenizer(), bad_records="stop").stored(tmp_path / "tokens")
    assert stored(data, tmp_path / "tokens").counted.records == 1


def fails(problem: BaseException) -> Callable[..., None]:
    def fail(*given: Any, **named: Any) -> None:
        raise problem

    return fail
