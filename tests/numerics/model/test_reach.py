"""Text trains what text reaches. A tower for pictures stays, bit by bit, and comes out again with its files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from deca_node.numerics.forecast.shapes import meta_model, model_shape
from deca_node.numerics.model.blocks import partition
from deca_node.numerics.model.load import load_model
from deca_node.numerics.model.reach import unreached
from deca_node.numerics.model.save import save_model
from tests.numerics.model.seeing_models import gemma3, llama4, qwen3_5
from tests.numerics.model.small_models import folder_of, gpt2, llama, qwen2

SEEING = [gemma3, qwen3_5, llama4]
Build = Callable[[], PreTrainedModel]


@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
def test_text_reaches_all_of_a_text_model(build: Build) -> None:
    assert not unreached(build())


@pytest.mark.parametrize("build", SEEING)
def test_blocks_hold_exactly_what_text_moves(build: Build, tmp_path: Path) -> None:
    model = load_model(str(folder_of(build(), tmp_path / "m"))).model
    blocks = partition(model, 1)
    model.requires_grad_(True)
    model(input_ids=torch.arange(2, 14).view(1, -1), use_cache=False).logits.float().square().sum().backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {name for block in blocks for name in block.parameters}
    assert len(moved) < len(list(model.parameters()))
    assert [block.name for block in blocks][:3] == ["embedding", "layers.0", "layers.1"]


@pytest.mark.parametrize("build", SEEING)
def test_nothing_of_a_model_that_sees_is_lost(build: Build, tmp_path: Path) -> None:
    """Every tensor of the files is there again, and the files that turn pictures into inputs."""
    torch.manual_seed(0)
    folder = folder_of(build(), tmp_path / "m")
    (folder / "preprocessor_config.json").write_text('{"do_resize": true}')
    loaded = load_model(str(folder))
    assert type(loaded.model) is type(build())
    out = save_model(loaded.model, loaded.tokenizer, tmp_path / "out", beside=loaded.beside)
    before, after = load_file(folder / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (out / "preprocessor_config.json").read_text() == '{"do_resize": true}'
    assert type(load_model(str(out)).model) is type(loaded.model)


@pytest.mark.parametrize("build", SEEING)
def test_the_plan_counts_what_is_frozen(build: Build, tmp_path: Path) -> None:
    folder = folder_of(build(), tmp_path / "m")
    model = load_model(str(folder)).model
    shape = model_shape(meta_model(str(folder), 8), 1)
    assert [(b.name, b.elements) for b in shape.blocks] == [(b.name, b.elements) for b in partition(model, 1)]
    assert shape.elements == sum(parameter.numel() for parameter in model.parameters())
    assert 0 < shape.frozen < shape.elements


def test_the_text_part_of_such_a_checkpoint_is_a_text_model(tmp_path: Path) -> None:
    """A folder that was saved as the text part alone stays what it is."""
    text = type(qwen3_5()).config_class().get_text_config()
    assert type(text).__name__ == "Qwen3_5TextConfig"
    part = qwen3_5()
    from transformers import Qwen3_5ForCausalLM

    bare = Qwen3_5ForCausalLM(part.config.get_text_config())
    loaded = load_model(str(folder_of(bare, tmp_path / "m"))).model
    assert type(loaded) is Qwen3_5ForCausalLM
    assert not unreached(loaded)
