"""A node that starts again holds out what it held out at first, whatever has happened to its name and its data."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.numerics.data.dataset import PackedData
from deca_node.numerics.saving.choices import CHOICE, KeptChoice
from deca_node.numerics.trainer import Trainer
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError
from tests.numerics.learning.labelled_runs import LABELS, LENGTH, bert, learnable_records, llama, write_model
from tests.numerics.learning.labelled_runs import write_records as write
from tests.numerics.saving.checkpoint_runs import SETTINGS, Notes, checkpoint, no_frames, parameters, run

Records = list[dict[str, Any]]
Row = tuple[int, ...]
POSITION = Step(1, 2)


class Seat:
    """A node of one task: its model, its data and its folder."""

    def __init__(self, folder: Path, task: str) -> None:
        self.folder = folder
        self.task = task
        torch.manual_seed(0)
        write_model(bert() if task == "classification" else llama(), folder / "model")
        (folder / "node").mkdir()
        self.notes = Notes()

    def records(self, count: int, seed: int = 0) -> Records:
        if self.task == "classification":
            return [dict(record) for record in learnable_records(count, seed)]
        return [{"text": f"w{seed} {record['text']}"} for record in learnable_records(count, seed)]

    def start(self, records: Records, **chosen: Any) -> Trainer:
        """Start a node with these data."""
        labels = {"task": "classification", "labels": ", ".join(LABELS)} if self.task == "classification" else {}
        settings: RunSettings = dataclasses.replace(SETTINGS, sequence_length=LENGTH, packing="none", **labels)
        node: dict[str, Any] = {"name": "a", "holdout": 0.2, "device": "cpu", "threads": 1, **chosen}
        data = write(self.folder / "data.jsonl", records)
        paths = {"dir": str(self.folder / "node"), "model": str(self.folder / "model"), "data": str(data)}
        self.notes = Notes()
        return Trainer.load(trainer_options(settings, NodeSettings(**paths, **node)), no_frames, self.notes)


def parts(trainer: Trainer) -> tuple[set[Row], set[Row]]:
    """The rows that are trained on, and those that are held out."""
    data = trainer._data
    if isinstance(data, PackedData):
        pieces = (part.pieces for part in (data.train, data.heldout))
        ids = data.train.line.ids
        kept, held = ({tuple(ids[p["start"] : p["stop"]].tolist()) for p in found} for found in pieces)
        return kept, held
    kept, held = (
        {tuple(part.ids[a:b].tolist()) for a, b in zip(part.starts, part.starts[1:], strict=False)}
        for part in (data.train, data.heldout)
    )
    return kept, held


@pytest.fixture(params=["text", "classification"])
def seat(request: pytest.FixtureRequest, tmp_path: Path) -> Seat:
    return Seat(tmp_path, request.param)


def begun(seat: Seat, records: Records) -> tuple[set[Row], set[Row]]:
    """The parts of a node that has begun and has a checkpoint."""
    trainer = seat.start(records)
    run(trainer, POSITION)
    checkpoint(trainer, POSITION)
    return parts(trainer)


CHANGES: dict[str, tuple[Callable[[Seat, Records], Records], dict[str, str], str]] = {
    "nothing": (lambda _, records: records, {}, ""),
    "another name": (lambda _, records: records, {"name": "b"}, ""),
    "another order": (lambda _, records: records[::-1], {}, "the records of the data are in another order: "),
    "records added": (
        lambda seat, records: [*seat.records(9, 3), *records],
        {"name": "b"},
        "the data has changed: it had 40 records, and has 49: ",
    ),
    "records removed": (
        lambda _, records: records[5:],
        {},
        "the data has changed: it had 40 records, and has 35: ",
    ),
    "records replaced": (
        lambda seat, records: [*seat.records(9, 3), *records[9:]],
        {},
        "the data has changed: other records are among its 40: ",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_record_changes_sides(seat: Seat, change: str) -> None:
    changed, chosen, says = CHANGES[change]
    records = seat.records(40)
    kept, held = begun(seat, records)
    again = seat.start(changed(seat, records), **chosen)
    assert again.ready().position == POSITION
    now_kept, now_held = parts(again)
    assert not now_kept & held and not now_held & kept
    assert [sentence.startswith(says) for sentence in seat.notes.warnings] == ([True] if says else [])
    if change in ("nothing", "another name", "another order"):
        assert (now_kept, now_held) == (kept, held)
    seat.start(changed(seat, records), **chosen)
    assert not any("another order" in sentence or "it had" in sentence for sentence in seat.notes.warnings)


def test_another_name_goes_on_bit_for_bit(seat: Seat, tmp_path: Path) -> None:
    records = seat.records(40)
    whole = seat.start(records)
    run(whole, Step(3, 0))
    begun(seat, records)
    second = seat.start(records, name="b")
    run(second, Step(3, 0))
    assert torch.equal(parameters(second), parameters(whole))


def test_equal_records_are_on_one_side(seat: Seat) -> None:
    records = seat.records(30)
    kept, held = parts(seat.start(records * 2))
    assert held and not kept & held


def test_the_share_of_the_first_start_stays(seat: Seat) -> None:
    records = seat.records(40)
    before = begun(seat, records)
    assert parts(seat.start(records, holdout=0.5)) == before
    assert seat.notes.warnings == [
        "holdout = 0.5 is not taken up: this node's first start held out 0.2, which stays so; for another share, begin "
        "anew with another --dir"
    ]


def test_the_tokens_of_the_first_start_say_what_the_node_counts(seat: Seat) -> None:
    """A node's share in the mean is fixed for the run, although its data grow."""
    first = seat.start(seat.records(40)).ready().tokens
    assert first > 20
    assert seat.start(seat.records(90)).ready().tokens == first
    path = seat.folder / "node" / CHOICE
    earlier = {name: value for name, value in json.loads(path.read_text()).items() if name != "tokens"}
    path.write_text(json.dumps(earlier))
    assert seat.start(seat.records(90)).ready().tokens > first, "a folder of an earlier release counts what is there"


def test_a_checkpoint_of_an_earlier_release_goes_on_by_the_places_of_records(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from then on with the seed that it had under its name."""
    records = seat.records(40)
    with monkeypatch.context() as patch:
        patch.setattr(KeptChoice, "keep", lambda _self: None)
        patch.setattr("deca_node.numerics.saving.choices.checkpoints", lambda _directory: ["one"])
        old = begun(seat, records)
    assert not (seat.folder / "node" / CHOICE).exists()
    for chosen in ({}, {"name": "b"}):
        again = seat.start(records, **chosen)
        assert parts(again) == old
        assert seat.notes.warnings == []
    assert json.loads((seat.folder / "node" / CHOICE).read_text())["choice"]["kind"] == "places"


def test_a_choice_that_cannot_be_read_is_not_made_again(seat: Seat) -> None:
    records = seat.records(40)
    seat.start(records)
    path = seat.folder / "node" / CHOICE
    for broken in ("", '{"format": 2}', '{"format": 1, "choice": {"kind": "records", "more": 1}}'):
        path.write_text(broken)
        with pytest.raises(StorageError, match=r"split.json cannot be read .* begin anew with another --dir"):
            seat.start(records)


def test_a_first_start_needs_room_for_the_choice_and_later_ones_do_not(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _chunks: object) -> None:
        if path.name == CHOICE:
            raise OSError(28, "No space left on device")

    records = seat.records(40)
    with monkeypatch.context() as patch:
        patch.setattr("deca_node.numerics.saving.choices.write_file", full)
        with pytest.raises(StorageError, match=r"cannot write .*split.json: No space left on device; make room"):
            seat.start(records)
    before = begun(seat, records)
    monkeypatch.setattr("deca_node.numerics.saving.choices.write_file", full)
    assert parts(seat.start(records)) == before
