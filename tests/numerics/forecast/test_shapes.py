"""A model's shapes from its config alone, held against the model itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    T5Config,
)

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import machine_of
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.data.batches import Batch
from deca_node.numerics.engine import BlockEngine, NewEdge
from deca_node.numerics.forecast import shapes
from deca_node.numerics.forecast.shapes import meta_model, model_shape
from deca_node.numerics.learning.loss import nll_sum
from deca_node.numerics.model.blocks import FlatBlock, partition
from deca_node.numerics.saving.start_values import nothing
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import ModelError
from deca_node.protocol.planning.case import Case
from deca_node.protocol.planning.memory import activation_bytes, state_bytes_per_element

LAYERS, VOCABULARY, LENGTH = 3, 64, 32
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDE = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 80, "max_position_embeddings": LENGTH}
DEEP = {"num_hidden_layers": LAYERS, "num_attention_heads": 4}

CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": lambda **more: LlamaConfig(**WIDE, **DEEP, **SPECIAL, num_key_value_heads=2, **more),
    "qwen2": lambda **more: Qwen2Config(**WIDE, **DEEP, **SPECIAL, num_key_value_heads=2, **more),
    "gpt-neox": lambda **more: GPTNeoXConfig(**WIDE, **DEEP, **SPECIAL, **more),
    "opt": lambda **more: OPTConfig(
        vocab_size=VOCABULARY, hidden_size=32, ffn_dim=80, max_position_embeddings=LENGTH, **DEEP, **SPECIAL, **more
    ),
    "gpt2": lambda **more: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=LAYERS, n_head=4, n_inner=80, n_positions=LENGTH, **SPECIAL, **more
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def folder_of(config: PreTrainedConfig, path: Path) -> str:
    config.save_pretrained(path)
    return str(path)


def real_model(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


# --- blocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("block_layers", [1, 2])
def test_blocks_are_those_of_the_model(tmp_path: Path, architecture: str, tied: bool, block_layers: int) -> None:
    config = CONFIGS[architecture](tie_word_embeddings=tied)
    model = meta_model(folder_of(config, tmp_path), LENGTH)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    shape = model_shape(model, block_layers, "it")
    real = partition(real_model(config), block_layers)
    assert [(b.name, b.elements) for b in shape.blocks] == [(b.name, b.elements) for b in real]
    for block in shape.blocks:
        assert block.frame_bytes == {name: codec.nbytes(block.elements) for name, codec in CODECS.items()}
    assert (shape.name, shape.layers, shape.hidden, shape.intermediate) == ("it", LAYERS, 32, 80)
    assert shape.vocabulary == VOCABULARY


def test_eight_billion_parameters_take_no_memory(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        dtype="bfloat16",
    )
    shape = model_shape(meta_model(folder_of(config, tmp_path), 512), 1)
    assert shape.elements == 8_030_261_248
    assert shape.dtype_bytes == 2
    assert len(shape.blocks) == 34


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_what_a_backward_pass_crosses(tmp_path: Path, tied: bool) -> None:
    """Layers from a block upward, and always the head's matrix, which a tied model keeps in its embedding."""
    config = CONFIGS["llama"](tie_word_embeddings=tied)
    blocks = model_shape(meta_model(folder_of(config, tmp_path), LENGTH), 1).blocks
    matrix, layer = 32 * VOCABULARY, blocks[1].elements
    assert [b.layers for b in blocks[:4]] == [0, 1, 1, 1]
    assert [b.layers_from for b in blocks[:4]] == [3, 3, 2, 1]
    assert [b.multiplied_from for b in blocks[:4]] == [n * layer + matrix for n in (3, 3, 2, 1)]
    assert [b.multiplied for b in blocks[:4]] == [matrix if tied else 0, layer, layer, layer]
    assert blocks[0].largest_tensor == matrix
    if not tied:
        head = blocks[4]
        assert (head.layers, head.layers_from, head.multiplied, head.multiplied_from) == (0, 0, matrix, matrix)


def test_a_config_without_a_dtype_counts_as_float32(tmp_path: Path) -> None:
    config = CONFIGS["llama"]()
    config.dtype = None
    assert model_shape(meta_model(folder_of(config, tmp_path), LENGTH), 1).dtype_bytes == 4


# --- memory -----------------------------------------------------------------------------------------


def planned(config: PreTrainedConfig, folder: Path, settings: RunSettings) -> Case:
    shape = model_shape(meta_model(folder_of(config, folder), LENGTH), settings.block_layers)
    return Case.of(settings, shape, ("a", "b", "c"), machine_of(NodeSettings()))


def loss_of(model: PreTrainedModel, sequences: int) -> Tensor:
    tokens = torch.randint(0, VOCABULARY, (sequences, LENGTH), generator=torch.Generator().manual_seed(1))
    return nll_sum(model, Batch(tokens, tokens), torch.device("cpu"))


@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_is_what_the_engine_keeps(dtype: torch.dtype, degree: int) -> None:
    """All vectors of the engine after a step, but for a float32 master: that is the parameters themselves."""
    model = real_model(CONFIGS["llama"](), dtype)
    block = partition(model, 1)[1]
    engine = BlockEngine.of(model, block, RunSettings(), nothing)
    frame = torch.empty(CODECS["int8"].nbytes(block.elements), dtype=torch.uint8)
    engine.keyframe(frame)
    engine.connect([NewEdge(str(number), 0.3, frame) for number in range(degree)], frame)

    def gradient() -> float:
        loss = loss_of(model, 1)
        loss.backward()
        return loss.item()

    engine.half_step(1e-3, gradient)
    assert engine.moments is not None and engine.flat.grad is not None
    vectors = [engine.flat.grad, *engine.moments]
    vectors += [engine.flat.master] if dtype != torch.float32 else []
    if engine.public is not None:
        vectors += [engine.public.x_hat, *(edge.e for edge in engine.public.edges.values())]
    kept = sum(vector.numel() * vector.element_size() for vector in vectors)
    assert kept == block.elements * state_bytes_per_element(dtype.itemsize, degree)


def saved_bytes(model: PreTrainedModel, flat: FlatBlock, sequences: int) -> int:
    """What autograd keeps of a forward pass beside the parameters, each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model, sequences)
    flat.collect(loss.backward)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_activations_are_about_what_autograd_keeps(tmp_path: Path, architecture: str, dtype: torch.dtype) -> None:
    """For every block that has layers above it. The estimate is made for this family: GPT-2, with dropout and an
    activation function of many operations, keeps twice as much, and GPT-NeoX, whose norms copy nothing, less."""
    settings = RunSettings(sequence_length=LENGTH, batch_size=4, dtype=str(dtype).removeprefix("torch."))
    config = CONFIGS[architecture](tie_word_embeddings=False)
    case = planned(config, tmp_path, settings)
    model = real_model(config, dtype).train()
    for block, shape in zip(partition(model, 1)[:-1], case.model.blocks, strict=False):
        flat = FlatBlock(model, block)
        assert saved_bytes(model, flat, 4) == pytest.approx(activation_bytes(case, shape), rel=0.2)
        flat.freeze()


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("./gone", r"there is no folder './gone' to read a model from"),
        (
            "gone",
            r"'gone' is not a folder here, and its config.json is not in .* cache; .*: hf download gone config.json",
        ),
        ("a/b/c", r"'a/b/c' is not a folder here, and not an id on the hub either"),
    ],
)
def test_a_model_that_is_not_here(source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=said):
        meta_model(source, LENGTH)


def test_a_hub_id_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(folder_of(CONFIGS["llama"](), tmp_path))
    asked: list[tuple[str, str]] = []

    def cached(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(folder / file)

    monkeypatch.setattr(shapes, "try_to_load_from_cache", cached)
    assert len(model_shape(meta_model("some/model", LENGTH), 1).blocks) == LAYERS + 2
    assert asked == [("some/model", "config.json")]


def test_what_start_would_refuse_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"sequence_length = 33 is more than the 32 positions of the model in .*"):
        meta_model(folder_of(CONFIGS["llama"](), tmp_path / "llama"), LENGTH + 1)
    with pytest.raises(ModelError, match="t5 is an encoder-decoder"):
        meta_model(folder_of(T5Config(d_model=8, num_layers=1), tmp_path / "t5"), LENGTH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        meta_model(str(tmp_path / "empty"), LENGTH)


def test_a_config_that_makes_no_model(tmp_path: Path) -> None:
    folder = Path(folder_of(CONFIGS["llama"](), tmp_path))
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_act": "silu"', '"hidden_act": "no such thing"'))
    with pytest.raises(ModelError, match=r"config\.json does not make a model"):
        meta_model(str(folder), LENGTH)
