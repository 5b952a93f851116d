"""The exported model of a checkpoint has the trainer's values, and loads like any other model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from deca_node.numerics.model.load import load_model
from deca_node.numerics.model.save import save_model
from deca_node.numerics.saving.export import export
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import ModelError, StorageError
from deca_node.storage.manifest import checkpoints
from tests.numerics.saving.checkpoint_runs import Notes, checkpoint, make, parameters, run, tiny_model

WHERE = [Step(3, 0), Step(6, 2)]
"""Between two visits, and in the middle of one in the second round."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start_model(folder: Path, dtype: torch.dtype = torch.float32) -> str:
    words = {"<eos>": 0, "<unk>": 1, "word": 2}
    raw = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", unk_token="<unk>")
    return str(save_model(tiny_model(dtype), tokenizer, folder / "start-model"))


@pytest.mark.parametrize("position", WHERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_what_the_trainer_held(tmp_path: Path, position: Step, dtype: torch.dtype) -> None:
    trainer = make(tmp_path / "node", dtype=dtype)
    run(trainer, position)
    checkpoint(trainer, position)
    made = export(tmp_path / "node", start_model(tmp_path, dtype), tmp_path / "out", Notes())
    assert made.position == position
    model = load_model(str(tmp_path / "out")).model
    found = torch.cat([p.detach().reshape(-1).view(torch.uint8) for p in model.parameters()])
    assert torch.equal(found, parameters(trainer))


def test_a_damaged_checkpoint_is_named_and_left_where_it_is(tmp_path: Path) -> None:
    trainer = make(tmp_path / "node")
    run(trainer, WHERE[0])
    checkpoint(trainer, WHERE[0])
    damaged = tmp_path / "node" / "checkpoints" / "000009-00000"
    damaged.mkdir()
    notes = Notes()
    made = export(tmp_path / "node", start_model(tmp_path), tmp_path / "out", notes)
    assert made.position == WHERE[0]
    assert "000009-00000 is left out" in notes.warnings[0]
    assert damaged in checkpoints(tmp_path / "node")


def test_without_a_checkpoint_there_is_nothing_to_make(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no sound checkpoint"):
        export(tmp_path, start_model(tmp_path), tmp_path / "out", Notes())


def test_another_model_is_refused(tmp_path: Path) -> None:
    trainer = make(tmp_path / "node")
    checkpoint(trainer, Step(0, 0))
    with pytest.raises(ModelError, match="is not the model that the run"):
        export(tmp_path / "node", start_model(tmp_path, torch.float64), tmp_path / "out", Notes())
    assert not (tmp_path / "out").exists()
