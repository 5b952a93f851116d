"""The mean of copies is torch's mean, and folders without a mean are refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from deca_node.numerics.saving import averaging
from deca_node.numerics.saving.averaging import average
from deca_node.protocol.errors import MismatchError, ModelError, StorageError
from deca_node.storage.model_files import INDEX

CONFIG = LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
NORM = "model.norm.weight"


def write(folder: Path, seed: int, dtype: torch.dtype = torch.float32, shards: str = "1GB") -> Path:
    torch.manual_seed(seed)
    LlamaForCausalLM(CONFIG).to(dtype).save_pretrained(folder, max_shard_size=shards)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", ["1GB", "2KB"])
def test_it_is_the_mean(tmp_path: Path, dtype: torch.dtype, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With slices smaller than most tensors, and copies that are split into different files."""
    monkeypatch.setattr(averaging, "SLICE_ELEMENTS", 20)
    folders = [write(tmp_path / str(seed), seed, dtype, "1GB" if seed == 2 else shards) for seed in range(3)]
    reports: list[tuple[int, int]] = []
    made = average(folders, tmp_path / "mean", lambda done, total: reports.append((done, total)))
    copies = [tensors(folder) for folder in folders]
    wide = {name: torch.stack([copy[name].double() for copy in copies]) for name in copies[0]}
    found = tensors(tmp_path / "mean")
    assert found.keys() == wide.keys()
    assert all(torch.equal(found[name], wide[name].mean(dim=0).to(dtype)) for name in wide)
    elements = sum(tensor.numel() for tensor in found.values())
    assert (made.copies, made.tensors, made.elements, reports[-1]) == (3, len(found), elements, (elements, elements))
    squares = sum(float((w - w.mean(dim=0)).square().sum()) for w in wide.values())
    assert made.distance == pytest.approx((squares / (3 * elements)) ** 0.5)
    assert (tmp_path / "mean" / INDEX).exists() == (shards == "2KB")
    AutoModelForCausalLM.from_pretrained(tmp_path / "mean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "mean"]


def test_the_mean_of_equal_copies_is_the_copy(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", 0, torch.bfloat16)
    assert average([folder, folder], tmp_path / "mean").distance == 0.0
    for path in folder.iterdir():
        assert (tmp_path / "mean" / path.name).read_bytes() == path.read_bytes()


Spoil = Callable[[Path], object]


def change(edit: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def apply(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        edit(content)
        save_file(content, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def edit_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5, "transformers_version": "1"}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (change(lambda t: t.pop(NORM)), f"a has a tensor {NORM}, and .*b has none"),
        (change(lambda t: t.update(more=torch.zeros(1))), "b has a tensor more, and .*a has none"),
        (change(lambda t: t.update({NORM: t[NORM].half()})), rf"{NORM} is F32 \[8\] in .*a and F16 \[8\] in .*b"),
        (change(lambda t: t.update({NORM: torch.zeros(9)})), rf"{NORM} is F32 \[8\] in .*a and F32 \[9\] in .*b"),
        (change(lambda t: t.update({NORM: t[NORM] * float("nan")})), "numbers that are not finite"),
        (edit_config, "rms_norm_eps in config.json differs"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "tokenizer.json differs"),
    ],
)
def test_what_is_no_copy_is_refused(tmp_path: Path, spoil: Spoil, says: str) -> None:
    folders = [write(tmp_path / name, 0) for name in "ab"]
    spoil(folders[1])
    with pytest.raises(MismatchError, match=says):
        average(folders, tmp_path / "mean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_whole_numbers_must_be_equal(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, 0) for name in "ab"]
    for folder in folders:
        change(lambda t: t.update(steps=torch.tensor(3), ids=torch.arange(4)))(folder)
    average(folders, tmp_path / "mean")
    found = tensors(tmp_path / "mean")
    assert torch.equal(found["ids"], torch.arange(4)) and found["steps"].item() == 3
    change(lambda t: t.update(steps=torch.tensor(4)))(folders[1])
    with pytest.raises(MismatchError, match="steps holds I64 numbers that differ"):
        average(folders, tmp_path / "other")


def test_damage_and_no_room(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, 0) for name in "ab"]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        average(folders, tmp_path / "file" / "mean")
    path = folders[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match="cut short"):
        average(folders, tmp_path / "mean")
