"""A trainer that restarts at any step continues bit for bit, and a failing disk costs at most the newest checkpoint."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from deca_node.numerics.codecs.formats import KEYFRAME_CODEC
from deca_node.numerics.data.batches import make_batch
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import BlockVersion, Delta
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError, WireError
from deca_node.storage.manifest import (
    BLOCKS,
    CHECKPOINTS,
    MANIFEST,
    START,
    checkpoints,
    newest_manifest,
    read_manifest,
)
from tests.numerics.saving.checkpoint_runs import (
    POSITIONS,
    SCHEDULE,
    SETTINGS,
    STEPS,
    Notes,
    checkpoint,
    do,
    make,
    packed_data,
    parameters,
    run,
    tiny_data,
    tiny_model,
)
from tests.storage.failing_disk import Disk

END = POSITIONS[-1]
BEFORE, WITHIN = Step(5, 0), Step(5, 2)
"""Two positions of one visit in the second round: nothing is active, and something is."""

DTYPES = [torch.float32, torch.bfloat16]

Expected = dict[Step, torch.Tensor]
"""The parameters of a run without restarts, as bytes, before each position."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def uninterrupted(folder: Path, dtype: torch.dtype) -> Expected:
    trainer, found = make(folder, dtype=dtype), {}
    for step in STEPS:
        found[step] = parameters(trainer)
        do(trainer, step)
    return found | {END: parameters(trainer)}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[torch.dtype, Expected]:
    """Runs without restarts. They are made before the tests, because all draw from one random generator."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return {dtype: uninterrupted(folder / str(dtype), dtype) for dtype in DTYPES}


# --- going on bit for bit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "dtype"),
    [*((p, torch.float32) for p in POSITIONS), *((p, torch.bfloat16) for p in POSITIONS[1::4])],
    ids=lambda value: f"{value.activation}-{value.inner}" if isinstance(value, Step) else str(value),
)
def test_a_run_goes_on_bit_for_bit_from_any_position(
    position: Step, dtype: torch.dtype, expected: dict[torch.dtype, Expected], tmp_path: Path
) -> None:
    first = make(tmp_path, dtype=dtype)
    run(first, position)
    checkpoint(first, position)
    del first
    torch.manual_seed(99)
    second = make(tmp_path, dtype=dtype)
    assert second.ready().position == position
    assert torch.equal(parameters(second), expected[dtype][position])
    run(second, END)
    assert torch.equal(parameters(second), expected[dtype][END])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_restart_before_every_step_changes_nothing(
    dtype: torch.dtype, expected: dict[torch.dtype, Expected], tmp_path: Path
) -> None:
    for step, position in zip(STEPS, POSITIONS[1:], strict=True):
        trainer = make(tmp_path, dtype=dtype)
        do(trainer, step)
        checkpoint(trainer, position)
        assert torch.equal(parameters(trainer), expected[dtype][position]), f"differs after {step}"


def test_a_checkpoint_disturbs_nothing(expected: dict[torch.dtype, Expected], tmp_path: Path) -> None:
    """A checkpoint changes neither the random numbers nor the active block."""
    trainer = make(tmp_path)
    for step, position in zip(STEPS, POSITIONS[1:], strict=True):
        do(trainer, step)
        checkpoint(trainer, position)
    assert torch.equal(parameters(trainer), expected[torch.float32][END])


def test_a_model_that_is_kept_disturbs_nothing(expected: dict[torch.dtype, Expected], tmp_path: Path) -> None:
    """Nor does one that cannot be: a file is in its way."""
    trainer, start = make(tmp_path), parameters(make(tmp_path / "start"))
    for step, position in zip(STEPS, POSITIONS[1:], strict=True):
        do(trainer, step)
        if position.inner == 0:
            event = trainer.obey(c.Evaluate("round", "candidate-1"))
            assert isinstance(event, e.Evaluated) and event.problem == ""
    assert torch.equal(parameters(trainer), expected[torch.float32][END])
    kept = LlamaForCausalLM.from_pretrained(tmp_path / "candidate-1")
    assert all(torch.equal(p, q) for p, q in zip(kept.parameters(), trainer.model.parameters(), strict=True))
    assert not torch.equal(parameters(trainer), start)
    (tmp_path / "candidate-2").touch()
    event = trainer.obey(c.Evaluate("round", "candidate-2"))
    assert isinstance(event, e.Evaluated) and "a file of that name is in the way" in event.problem


def test_a_run_on_packed_records_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """The way in which records are kept apart is looked for at every start, and must not draw random numbers."""
    data = packed_data()
    assert (make_batch(data.train, np.arange(len(data.train)))).positions is not None  # type: ignore[union-attr]
    whole = make(tmp_path / "whole", data=data)
    run(whole, END)
    for position in POSITIONS[1::5]:
        first = make(tmp_path / "parts", data=data)
        run(first, position)
        checkpoint(first, position)
    last = make(tmp_path / "parts", data=data)
    run(last, END)
    assert torch.equal(parameters(last), parameters(whole))


TRAINING: list[dict[str, Any]] = [
    {"weight_decay": 0.5},
    {"max_grad_norm": 0.1},
    {"lr_warmup_steps": 5},
    {"embedding_lr_scale": 0.5, "head_lr_scale": 2.0},
    {"neftune_alpha": 5.0},
    {"dropout": 0.5},
]


@pytest.mark.parametrize("chosen", TRAINING, ids="-".join)
def test_a_run_with_a_training_setting_goes_on_bit_for_bit(
    chosen: dict[str, Any], expected: dict[torch.dtype, Expected], tmp_path: Path
) -> None:
    """And the setting does something."""
    settings = replace(SETTINGS, **chosen)
    whole = make(tmp_path / "whole", settings=settings)
    run(whole, END)
    for position in POSITIONS[1::5]:
        first = make(tmp_path / "parts", settings=settings)
        run(first, position)
        checkpoint(first, position)
    last = make(tmp_path / "parts", settings=settings)
    run(last, END)
    assert torch.equal(parameters(last), parameters(whole))
    assert not torch.equal(parameters(whole), expected[torch.float32][END])


def test_dropout_draws(tmp_path: Path) -> None:
    """Otherwise the tests above would not test the random generators."""
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    torch.manual_seed(1)
    do(one, STEPS[0])
    torch.manual_seed(2)
    do(other, STEPS[0])
    assert not torch.equal(parameters(one), parameters(other))


def test_ready_names_the_model_that_the_run_starts_from(tmp_path: Path) -> None:
    """Peers compare the hash of the start model, also after a checkpoint was restored."""
    first = make(tmp_path)
    run(first, BEFORE)
    checkpoint(first, BEFORE)
    assert make(tmp_path).ready().model == first.ready().model
    assert make(tmp_path / "fresh").ready().model == first.ready().model


def test_a_checkpoint_may_be_written_again_at_the_same_place(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    run(trainer, WITHIN)
    for _ in range(3):
        folder = checkpoint(trainer, WITHIN)
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == [folder.name]
    assert make(tmp_path).ready().position == WITHIN


def test_two_are_kept_with_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    for step, position in zip(STEPS, POSITIONS[1:], strict=True):
        do(trainer, step)
        checkpoint(trainer, position)
    kept = checkpoints(tmp_path)
    assert [path.name for path in kept] == ["000012-00000", "000011-00001"]
    named = {stored.file for folder in kept for stored in read_manifest(folder).files}
    there = {f"{folder}/{path.name}" for folder in (BLOCKS,) for path in (tmp_path / folder).iterdir()}
    assert there == {name for name in named if name.startswith(BLOCKS)}


def test_only_blocks_that_changed_are_written(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    run(trainer, BEFORE)
    checkpoint(trainer, BEFORE)
    before = {path.name: path.stat().st_ino for path in (tmp_path / BLOCKS).iterdir()}
    for step in STEPS:
        if BEFORE <= step < Step(6, 0):
            do(trainer, step)
    checkpoint(trainer, Step(6, 0))
    after = {path.name: path.stat().st_ino for path in (tmp_path / BLOCKS).iterdir()}
    fresh = trainer.ready().model.block_names[SCHEDULE[5].block]
    assert set(after) - set(before) == {f"{fresh}@000005.safetensors", f"{fresh}@000005.delta"}
    assert {name: after[name] for name in before} == before


def test_a_visit_that_was_saved_early_is_a_version(tmp_path: Path) -> None:
    """An early stop saves the model with the active block as it is; a later checkpoint holds the same values."""
    trainer = make(tmp_path)
    run(trainer, WITHIN)
    assert isinstance(trainer.obey(c.Save("stopped")), e.Saved)
    checkpoint(trainer, Step(6, 0))
    assert torch.equal(parameters(make(tmp_path)), parameters(trainer))


# --- another run, other data ------------------------------------------------------------------------


def test_a_checkpoint_of_another_run_is_refused_by_the_field(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    run(trainer, BEFORE)
    checkpoint(trainer, BEFORE)
    with pytest.raises(StorageError, match=r"learning_rate is 0\.002 at the checkpoint and 0\.5 at this start.*--dir"):
        make(tmp_path, settings=replace(SETTINGS, learning_rate=0.5))
    with pytest.raises(StorageError, match=r"model is .* at the checkpoint"):
        make(tmp_path, dtype=torch.bfloat16)


def test_a_checkpoint_from_before_the_setting_packing_goes_on_concatenated(tmp_path: Path) -> None:
    """It says nothing of packing. To go on with records packed otherwise would train differently without a word."""
    old = replace(SETTINGS, packing="concatenated")
    trainer = make(tmp_path, settings=old)
    run(trainer, BEFORE)
    checkpoint(trainer, BEFORE)
    assert "packing" not in json.loads((checkpoints(tmp_path)[0] / MANIFEST).read_text())["agreement"]
    says = r"packing is concatenated at the checkpoint and isolated at this start; .*\(packing = 'concatenated'\)"
    with pytest.raises(StorageError, match=says):
        make(tmp_path, settings=replace(SETTINGS, packing="isolated"))
    assert make(tmp_path, settings=old).ready().position == BEFORE


def test_data_that_changed_begin_a_fresh_epoch_with_a_warning(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    run(trainer, BEFORE)
    checkpoint(trainer, BEFORE)
    notes = Notes()
    assert make(tmp_path, data=tiny_data(5), notes=notes).ready().position == BEFORE
    assert len(notes.warnings) == 1
    assert "the data has changed: 5 sequences" in notes.warnings[0]


def test_starting_values_of_another_model_are_not_believed(tmp_path: Path) -> None:
    """A run that ended before its first checkpoint left such files; deltas relative to them would be wrong."""
    run(make(tmp_path, dtype=torch.bfloat16), Step(2, 0))
    trainer = make(tmp_path)
    run(trainer, Step(1, 0))
    checkpoint(trainer, Step(1, 0))
    manifest = newest_manifest(tmp_path)
    assert manifest
    (name,) = manifest.blocks
    start, there = tmp_path / START / f"{name}.safetensors", tmp_path / manifest.blocks[name].value.file
    assert abs(start.stat().st_size - there.stat().st_size) < 100


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_starting_values_are_made_anew_from_the_model(harm: Callable[[Path], object], tmp_path: Path) -> None:
    trainer = make(tmp_path)
    run(trainer, WITHIN)
    checkpoint(trainer, WITHIN)
    before = {path: path.read_bytes() for path in (tmp_path / START).iterdir()}
    assert len(before) == 4
    for path in before:
        harm(path)
    make(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / START).iterdir()} == before


# --- damage -----------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def two_checkpoints(folder: Path) -> Trainer:
    """Two checkpoints: just before a visit, and within it. The newer one has a file for the active block."""
    trainer = make(folder)
    run(trainer, BEFORE)
    checkpoint(trainer, BEFORE)
    run_on(trainer, BEFORE, WITHIN)
    checkpoint(trainer, WITHIN)
    return trainer


def run_on(trainer: Trainer, since: Step, until: Step) -> None:
    for step in STEPS:
        if since <= step < until:
            do(trainer, step)


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", [MANIFEST, "active.safetensors"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    name: str, harm: Callable[[Path], None], expected: dict[torch.dtype, Expected], tmp_path: Path
) -> None:
    two_checkpoints(tmp_path)
    harm(checkpoints(tmp_path)[0] / name)
    notes = Notes()
    trainer = make(tmp_path, notes=notes)
    assert trainer.ready().position == BEFORE
    (warning,) = notes.warnings
    assert warning.startswith("checkpoint 000005-00002 is damaged")
    assert name in warning
    assert warning.endswith("going back to 000005-00000")
    run(trainer, Step(5, 1))
    checkpoint(trainer, Step(5, 1))
    again = make(tmp_path, notes=notes)
    assert again.ready().position == Step(5, 1)
    assert len(notes.warnings) == 1
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()].count("000005-00002.damaged") == 0
    run(again, END)
    assert torch.equal(parameters(again), expected[torch.float32][END])


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_block_files_that_both_name_leave_nothing_sound(harm: Callable[[Path], None], tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for path in sorted((tmp_path / BLOCKS).iterdir()):
        before = path.read_bytes()
        harm(path)
        with pytest.raises(StorageError, match=rf"none of the 2 checkpoints .*{path.name} .*move that folder away"):
            make(tmp_path)
        path.write_bytes(before)
    assert make(tmp_path).ready().position == WITHIN


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_block_files_of_the_newest_alone_cost_only_that(harm: Callable[[Path], None], tmp_path: Path) -> None:
    trainer = make(tmp_path)
    run(trainer, Step(1, 0))
    checkpoint(trainer, Step(1, 0))
    run_on(trainer, Step(1, 0), Step(2, 0))
    checkpoint(trainer, Step(2, 0))
    (path,) = (tmp_path / BLOCKS).glob("*@000001.delta")
    harm(path)
    notes = Notes()
    assert make(tmp_path, notes=notes).ready().position == Step(1, 0)
    assert path.name in notes.warnings[0]


# --- a disk that fails ------------------------------------------------------------------------------


def failing(trainer: Trainer, position: Step, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> e.TrainerEvent:
    with disk.watched(monkeypatch):
        return trainer.obey(c.Checkpoint(position))


@pytest.mark.parametrize("position", [BEFORE, WITHIN], ids=["between", "within"])
@pytest.mark.parametrize("only_once", [True, False], ids=["once", "from then on"])
def test_whatever_call_fails_the_checkpoint_before_stands(
    only_once: bool, position: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that opens, writes, syncs, renames or makes a folder fails in turn, with ENOSPC.

    If the very last call and all after it fail, the rename before it cannot be undone. Then the new checkpoint is there
    as well, whole.
    """
    trainer = make(tmp_path)
    run(trainer, Step(4, 1))
    checkpoint(trainer, Step(4, 1))
    before = {Step(4, 1): parameters(make(tmp_path))}
    run_on(trainer, Step(4, 1), position)
    stands: list[Step] = []
    while isinstance(
        event := failing(trainer, position, Disk(len(stands), only_once), monkeypatch), e.CheckpointFailed
    ):
        assert "No space left on device" in event.sentence
        loaded = make(tmp_path)
        stands.append(loaded.ready().position)
        assert torch.equal(parameters(loaded), before.get(stands[-1], parameters(trainer)))
    assert len(stands) > 15
    assert stands[:15] == [Step(4, 1)] * 15
    assert set(stands) == {Step(4, 1)} if only_once else stands == sorted(stands)
    assert isinstance(event, e.Checkpointed)
    again = make(tmp_path)
    assert again.ready().position == position
    assert torch.equal(parameters(again), parameters(trainer))
    leftovers = [path for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".old"))]
    assert leftovers == []


def test_a_crash_leaves_what_the_next_start_removes(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    half = tmp_path / CHECKPOINTS / "000007-00000.partial"
    half.mkdir()
    (half / MANIFEST).write_bytes(b"{")
    parts = [tmp_path / BLOCKS / "layers.0@000009.delta.partial", tmp_path / START / "head.safetensors.partial"]
    for part in parts:
        part.write_bytes(b"half")
    between_renames = checkpoints(tmp_path)[0]
    between_renames.rename(between_renames.with_name(between_renames.name + ".old"))
    assert make(tmp_path).ready().position == WITHIN
    assert not any(path.exists() for path in [half, *parts])


# --- what donors give -------------------------------------------------------------------------------


def deltas_of(folder: Path) -> tuple[Delta, ...]:
    manifest = newest_manifest(folder)
    assert manifest
    stored = manifest.blocks.items()
    return tuple(Delta(BlockVersion(name, s.activation), str(folder / s.delta.file)) for name, s in stored)


def donor(folder: Path, position: Step = BEFORE) -> tuple[Trainer, tuple[Delta, ...]]:
    trainer = make(folder)
    run(trainer, position)
    checkpoint(trainer, position)
    return trainer, deltas_of(folder)


def test_adopted_blocks_are_the_donors_within_q8(tmp_path: Path) -> None:
    """|x - x0 - Q8(x - x0)| is half a scale at most, that is max|x - x0| / 254 in the group of 256."""
    giver, deltas = donor(tmp_path / "donor")
    assert len(deltas) == 4
    taker = make(tmp_path / "taker")
    assert taker.obey(c.Adopt(BEFORE, deltas)) == e.Adopted(BEFORE)
    start = tiny_model()
    for (name, given), (_, taken), (_, x0) in zip(
        giver.model.named_parameters(), taker.model.named_parameters(), start.named_parameters(), strict=True
    ):
        moved = (given - x0).abs().max().item()
        assert moved > 1e-4, name
        assert (given - taken).abs().max().item() <= 2.5 / 254 * 6e-3 + 1e-7, name
        assert not torch.equal(taken, x0)


def test_adopted_versions_are_in_the_next_checkpoint(tmp_path: Path) -> None:
    _, deltas = donor(tmp_path / "donor")
    taker = make(tmp_path / "taker")
    taker.obey(c.Adopt(BEFORE, deltas))
    checkpoint(taker, BEFORE)
    manifest = newest_manifest(tmp_path / "taker")
    assert manifest
    assert {name: s.activation for name, s in manifest.blocks.items()} == {
        delta.version.block: delta.version.activation for delta in deltas
    }
    again = make(tmp_path / "taker")
    assert again.ready().position == BEFORE
    assert torch.equal(parameters(again), parameters(taker))
    run(again, END)


def test_what_was_adopted_can_be_given_on(tmp_path: Path) -> None:
    """Q8 of values that Q8 gave has at most one more rounding error of float32."""
    _, deltas = donor(tmp_path / "donor")
    second, third = make(tmp_path / "second"), make(tmp_path / "third")
    second.obey(c.Adopt(BEFORE, deltas))
    checkpoint(second, BEFORE)
    third.obey(c.Adopt(BEFORE, deltas_of(tmp_path / "second")))
    for one, other in zip(second.model.parameters(), third.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_adopting_ends_a_visit_and_leaves_other_blocks_alone(tmp_path: Path) -> None:
    _, deltas = donor(tmp_path / "donor")
    taker = make(tmp_path / "taker")
    run(taker, Step(2, 2))
    active = taker.ready().model.block_names[SCHEDULE[2].block]
    held = {name: p.detach().clone() for name, p in taker.model.named_parameters()}
    (delta,) = (delta for delta in deltas if delta.version.block != active and delta.version.activation > 2)
    taker.obey(c.Adopt(BEFORE, (delta,)))
    changed = {name for name, p in taker.model.named_parameters() if not torch.equal(p, held[name])}
    blocks = {block.name: set(block.parameters) for block in taker._blocks}
    assert changed == blocks[delta.version.block]
    checkpoint(taker, BEFORE)
    manifest = newest_manifest(tmp_path / "taker")
    assert manifest
    assert manifest.blocks[active].activation == 2


def test_a_version_that_a_checkpoint_holds_is_taken_from_there(tmp_path: Path) -> None:
    """Older checkpoints name its files, which must not be overwritten."""
    trainer, deltas = donor(tmp_path)
    before = parameters(trainer)
    run_on(trainer, BEFORE, WITHIN)
    trainer.obey(c.Adopt(BEFORE, deltas))
    assert torch.equal(parameters(trainer), before)
    files = {path: path.read_bytes() for path in (tmp_path / BLOCKS).iterdir()}
    checkpoint(trainer, BEFORE)
    assert {path: path.read_bytes() for path in (tmp_path / BLOCKS).iterdir()} == files


def not_finite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:4] = b"\x00\x00\xc0\x7f"
    path.write_bytes(data)


@pytest.mark.parametrize(("harm", "reason"), [(cut, "bad-length"), (not_finite, "not-finite")])
def test_a_malformed_delta_is_named_and_nothing_adopted(
    harm: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    _, deltas = donor(tmp_path / "donor")
    taker = make(tmp_path / "taker")
    before = parameters(taker)
    harm(Path(deltas[-1].path))
    with pytest.raises(WireError, match=Path(deltas[-1].path).name) as caught:
        taker.obey(c.Adopt(BEFORE, deltas))
    assert caught.value.reason == reason
    assert torch.equal(parameters(taker), before)
    unknown = Delta(BlockVersion("layers.77", 3), deltas[0].path)
    with pytest.raises(WireError, match=r"layers\.77"):
        taker.obey(c.Adopt(BEFORE, (unknown,)))


def test_a_delta_is_one_encoding_of_the_whole_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of segments does not matter: donors and fetchers may cut a delta at any group."""
    monkeypatch.setattr("deca_node.numerics.saving.deltas.SEGMENT_ELEMENTS", KEYFRAME_CODEC.group)
    giver, deltas = donor(tmp_path)
    start = dict(tiny_model().named_parameters())
    now = dict(giver.model.named_parameters())
    for delta in deltas:
        (block,) = (block for block in giver._blocks if block.name == delta.version.block)
        moved = torch.cat([(now[n] - start[n]).detach().reshape(-1) for n in block.parameters])
        codes = torch.empty(KEYFRAME_CODEC.nbytes(block.elements), dtype=torch.uint8)
        KEYFRAME_CODEC.encode(moved, codes)
        assert Path(delta.path).read_bytes() == codes.numpy().tobytes()


def test_the_manifest_can_be_read_by_people(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    content = json.loads((checkpoints(tmp_path)[0] / MANIFEST).read_text())
    assert content["position"] == [5, 2]
    assert content["agreement"]["learning_rate"] == "0.002"
    assert content["active"]["counts"][0] == 2
    assert "rng" in content
