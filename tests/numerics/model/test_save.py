"""Saving models: a saved model is an ordinary checkpoint, and a failed save leaves the earlier one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

from deca_node.numerics.model import save as subject
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import load_model
from deca_node.numerics.model.save import save_model
from deca_node.protocol.errors import StorageError
from tests.numerics.model.small_models import (
    gpt2,
    llama,
    qwen2,
    small_tokenizer,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
def test_a_saved_model_is_an_ordinary_checkpoint(
    build: Callable[[], PreTrainedModel], dtype: torch.dtype, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build().to(dtype)
    model.generation_config.max_new_tokens = 7
    folder = save_model(model, small_tokenizer(), tmp_path / "deep" / "final")
    assert "".join(capfd.readouterr()) == ""
    again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert parameter_hash(again) == parameter_hash(model)
    assert again.generation_config.max_new_tokens == 7
    assert AutoTokenizer.from_pretrained(folder).get_vocab().items() >= small_tokenizer().get_vocab().items()
    assert [path.name for path in folder.parent.iterdir()] == ["final"]


def test_a_generation_config_is_kept_even_if_transformers_calls_it_invalid(folder: Path, tmp_path: Path) -> None:
    """Llama 2 was published with a temperature and without sampling; a run must not fail over that at its end."""
    odd = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(odd))
    loaded = load_model(str(folder))
    saved = save_model(loaded.model, loaded.tokenizer, tmp_path / "final")
    assert odd.items() <= json.loads((saved / "generation_config.json").read_text()).items()


def test_parameters_that_share_one_buffer_are_saved_each(tmp_path: Path) -> None:
    """The active block's parameters may be views of one flat tensor."""
    model = llama()
    layer = list(model.model.layers[0].parameters())
    flat = torch.cat([parameter.detach().view(-1) for parameter in layer])
    for parameter, part in zip(layer, flat.split([p.numel() for p in layer]), strict=True):
        parameter.data = part.view_as(parameter)
    folder = save_model(model, small_tokenizer(), tmp_path / "final")
    assert parameter_hash(load_model(str(folder)).model) == parameter_hash(model)


def test_an_earlier_checkpoint_is_replaced_whole(folder: Path) -> None:
    (folder / "left-over.txt").write_text("of the former save")
    model = llama()
    save_model(model, small_tokenizer(), folder)
    assert parameter_hash(load_model(str(folder)).model) == parameter_hash(model)
    assert not (folder / "left-over.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_other_peoples_folders_and_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(StorageError, match="holds other things than a model"):
        save_model(llama(), small_tokenizer(), tmp_path / "photos")
    with pytest.raises(StorageError, match="a file of that name is in the way"):
        save_model(llama(), small_tokenizer(), tmp_path / "photos" / "cat.jpg")
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_a_full_disk_is_noticed_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(subject.shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**20))
    before = parameter_hash(load_model(str(folder)).model)
    with pytest.raises(StorageError, match=r"the disk is too full .* 64 MiB are needed and 3 MiB are free in"):
        save_model(llama(), small_tokenizer(), folder)
    assert parameter_hash(load_model(str(folder)).model) == before


@pytest.mark.parametrize("fails_at", ["save", "rename"])
def test_a_failure_midway_leaves_the_former_checkpoint(
    fails_at: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, before = llama(), parameter_hash(load_model(str(folder)).model)
    original = Path.replace

    def fail(path: Path, *to: Any, **_: Any) -> Any:
        if fails_at == "save" or path.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return original(path, *to)

    if fails_at == "save":
        monkeypatch.setattr(model, "save_pretrained", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match=r"cannot be written to .*Input/output error"):
        save_model(model, small_tokenizer(), folder)
    assert parameter_hash(load_model(str(folder)).model) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_disk_that_fills_up_while_writing_is_told_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Rust side of safetensors reports the system's error as text."""
    model = llama()

    def fail(*_: Any) -> None:
        raise subject.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model, "save_pretrained", fail)
    with pytest.raises(StorageError, match="the disk is too full to write the model"):
        save_model(model, small_tokenizer(), tmp_path / "final")


def test_everyone_who_may_read_the_configuration_may_read_the_weights(folder: Path, tmp_path: Path) -> None:
    """safetensors makes its files for their owner alone, and a tuned model is often served by another user."""
    loaded = load_model(str(folder))
    saved = save_model(loaded.model, loaded.tokenizer, tmp_path / "final")
    assert len({path.stat().st_mode & 0o777 for path in saved.iterdir()}) == 1


def test_the_tokenizer_is_saved_as_it_was_and_not_as_it_was_read(folder: Path, tmp_path: Path) -> None:
    before = json.loads((folder / "tokenizer_config.json").read_text())
    loaded = load_model(str(folder))
    saved = save_model(loaded.model, loaded.tokenizer, tmp_path / "final")
    after = json.loads((saved / "tokenizer_config.json").read_text())
    assert "local_files_only" not in after.keys() - before.keys()
