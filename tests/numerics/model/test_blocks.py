"""Partitions of real architectures, and the flat buffer of an active block."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from deca_node.numerics.model.blocks import Block, FlatBlock, decoder_layers, origin_from, partition, spans
from deca_node.protocol.errors import ModelError

LAYERS, VOCABULARY = 3, 32
COMMON = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 16}
STACK = {"num_hidden_layers": LAYERS, "num_attention_heads": 2}
GROUPED = {**COMMON, **STACK, "num_key_value_heads": 1}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": lambda **more: LlamaConfig(**GROUPED, **SPECIAL, **more),
    "mistral": lambda **more: MistralConfig(**GROUPED, **SPECIAL, **more),
    "qwen2": lambda **more: Qwen2Config(**GROUPED, **SPECIAL, **more),
    "gemma2": lambda **more: Gemma2Config(**GROUPED, head_dim=8, **SPECIAL, **more),
    "gpt-neox": lambda **more: GPTNeoXConfig(**COMMON, **STACK, **SPECIAL, **more),
    "opt": lambda **more: OPTConfig(
        vocab_size=VOCABULARY, hidden_size=16, word_embed_proj_dim=8, ffn_dim=24, max_position_embeddings=16,
        **STACK, **SPECIAL, **more,
    ),
    "gpt2": lambda **more: GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=LAYERS, n_head=2, n_positions=16, **SPECIAL, **more
    ),
    "bloom": lambda **more: BloomConfig(
        vocab_size=VOCABULARY, hidden_size=16, n_layer=LAYERS, n_head=2, **SPECIAL, **more
    ),
}  # fmt: skip

architectures = pytest.mark.parametrize("architecture", CONFIGS)
tying = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


def build(architecture: str, tied: bool = False, layers: int = LAYERS) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIGS[architecture](tie_word_embeddings=tied)
    config.num_hidden_layers = layers
    if hasattr(config, "layer_types"):
        config.layer_types = (config.layer_types * layers)[:layers]
    return AutoModelForCausalLM.from_config(config).eval()  # no dropout: gradients are compared


def loss_of(model: nn.Module, seed: int = 1) -> Tensor:
    tokens = torch.randint(0, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(seed))
    return model(input_ids=tokens, labels=tokens).loss


def step_backward(model: nn.Module, seed: int = 1) -> float:
    loss = loss_of(model, seed)
    loss.backward()
    return loss.item()


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# --- partition --------------------------------------------------------------------------------------


@architectures
@tying
@pytest.mark.parametrize("block_layers", [1, 2, 5])
def test_blocks_are_disjoint_and_cover_every_parameter(architecture: str, tied: bool, block_layers: int) -> None:
    model = build(architecture, tied)
    blocks = partition(model, block_layers)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    names = [name for block in blocks for name in block.parameters]
    assert sorted(names) == sorted(sizes)
    assert [b.elements for b in blocks] == [sum(sizes[n] for n in b.parameters) for b in blocks]
    stacks = -(-LAYERS // block_layers)
    assert len(blocks) == stacks + (1 if tied else 2)
    assert all(not set(" :") & set(block.name) for block in blocks), "names must stand in a fingerprint"


@architectures
@tying
def test_tied_embeddings_belong_to_one_block(architecture: str, tied: bool) -> None:
    """Tied weights are in the embedding block only, and the remaining norm is in the last layers' block."""
    model = build(architecture, tied)
    blocks = partition(model, 1)
    vocabulary_sized = [
        (block.name, name)
        for block in blocks
        for name in block.parameters
        if VOCABULARY in model.get_parameter(name).shape and model.get_parameter(name).dim() == 2
    ]
    assert [block for block, _ in vocabulary_sized] == (["embedding"] if tied else ["embedding", "head"])
    rest = set(blocks[-1].parameters) - {n for n, _ in vocabulary_sized}
    assert any("norm" in name or "ln_f" in name for name in rest), "the final norm stands at the top"


@architectures
def test_a_layer_block_holds_its_layers_and_nothing_else(architecture: str) -> None:
    model = build(architecture)
    layers = decoder_layers(model)
    for index, block in enumerate(partition(model, 1)[1:-1]):
        assert block.name == f"layers.{index}"
        own = {id(p) for p in layers[index].parameters()}
        assert {id(model.get_parameter(name)) for name in block.parameters} == own


def test_layer_1_never_matches_layer_10() -> None:
    """``layers.1.`` never matches ``layers.10.``: parameters are told apart by identity."""
    blocks = {block.name: block for block in partition(build("llama", layers=12), 1)}
    assert all(".layers.1." in name for name in blocks["layers.1"].parameters)
    assert all(".layers.10." in name for name in blocks["layers.10"].parameters)
    assert blocks["layers.1"].elements == blocks["layers.10"].elements
    by_two = partition(build("llama", layers=12), 2)
    assert [block.name for block in by_two][1:-1] == [f"layers.{i}-{i + 1}" for i in range(0, 12, 2)]


def test_what_stands_beside_the_input_embeddings_is_embedding() -> None:
    names = {a: set(partition(build(a), 1)[0].parameters) for a in ("gpt2", "opt", "bloom", "gpt-neox")}
    assert names["gpt2"] == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert names["opt"] == {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"}
    assert {n.rsplit(".", 1)[0] for n in names["bloom"]} == {
        "transformer.word_embeddings",
        "transformer.word_embeddings_layernorm",
    }
    assert names["gpt-neox"] == {"gpt_neox.embed_in.weight"}


class Unusual(nn.Module):
    """A decoder outside transformers whose output head is called an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_in = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.embed_out = nn.Linear(4, 8)

    def get_output_embeddings(self) -> nn.Module:
        return self.embed_out


def test_an_output_head_is_no_embedding_whatever_its_name() -> None:
    blocks = {block.name: block.parameters for block in partition(Unusual(), 1)}
    assert blocks["embedding"] == ("embed_in.weight",)
    assert blocks["head"] == ("embed_out.bias", "embed_out.weight")


def test_the_last_group_of_layers_may_be_smaller() -> None:
    assert [b.name for b in partition(build("llama"), 2)] == ["embedding", "layers.0-1", "layers.2", "head"]


def test_the_order_inside_a_block_is_that_of_names() -> None:
    """The order is part of the wire format; registration order may differ between library versions."""
    for block in partition(build("qwen2"), 2):
        assert list(block.parameters) == sorted(block.parameters)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(2, 2), "Linear has no layers"),
        (nn.ModuleDict({"experts": nn.ModuleList()}), "ModuleDict has no layers"),
        (
            T5ForConditionalGeneration(T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)),
            "is an encoder-decoder",
        ),
    ],
    ids=["linear", "empty", "t5"],
)
def test_models_without_decoder_layers_are_refused_in_words(model: nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        partition(model, 1)


def test_a_list_of_the_wrong_length_is_not_the_stack() -> None:
    model = build("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="looked for a list of 7 layers"):
        decoder_layers(model)


# --- the flat buffer --------------------------------------------------------------------------------


@architectures
@tying
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_thaw_and_freeze_change_no_bit(architecture: str, tied: bool, dtype: torch.dtype) -> None:
    """Freeze restores separate parameters with bit-identical values, keeps ties, and leaves no gradient."""
    model = build(architecture, tied).to(dtype)
    before = values(model)
    for block in partition(model, 2):
        flat = FlatBlock(model, block)
        flat.publish()
        flat.freeze()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.dtype == dtype
        assert not parameter.requires_grad and parameter.grad is None
        assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
    shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert shared == tied


def test_only_the_active_block_requires_gradients() -> None:
    model = build("llama")
    for block in partition(model, 1):
        flat = FlatBlock(model, block)
        assert {name for name, p in model.named_parameters() if p.requires_grad} == set(block.parameters)
        flat.collect(lambda: step_backward(model))
        assert all(p.grad is None for p in model.parameters())
        flat.freeze()


def test_float32_parameters_are_views_of_the_master() -> None:
    """There is no second copy: the next forward pass reads what is written to the master."""
    model = build("llama")
    block = partition(model, 1)[1]
    flat = FlatBlock(model, block)
    before = loss_of(model).item()
    flat.master.mul_(3.0)
    assert loss_of(model).item() != before
    for name in block.parameters:
        assert model.get_parameter(name).untyped_storage().data_ptr() == flat.master.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_masters_of_short_dtypes_keep_what_rounding_would_lose(dtype: torch.dtype) -> None:
    """A step far below bfloat16's resolution is lost in the parameter but not in the master."""
    model = build("llama").to(dtype)
    block = partition(model, 1)[1]
    flat, before = FlatBlock(model, block), values(model)
    flat.master.fill_(1.0)
    for _ in range(300):
        flat.master.add_(1e-4)
    flat.publish()
    name = block.parameters[0]
    assert torch.equal(model.get_parameter(name), torch.full_like(before[name], 1.03))
    flat.freeze()
    assert torch.equal(model.get_parameter(name), torch.full_like(before[name], 1.03))


@tying
def test_gradients_accumulate_over_micro_batches_in_float32(tied: bool) -> None:
    """The flat gradient is the sum over backward passes, and zero again for the next step."""
    model = build("llama", tied)
    block = partition(model, 1)[0]
    flat = FlatBlock(model, block)
    parts = []
    for seed in (1, 2):
        flat.collect(lambda seed=seed: step_backward(model, seed))
        assert flat.grad is not None
        parts.append(flat.grad.clone())
    flat.collect(lambda: [step_backward(model, seed) for seed in (1, 2)])
    assert torch.equal(flat.grad, parts[0] + parts[1])
    assert parts[0].abs().max() > 0


def test_gradients_are_those_of_autograd() -> None:
    model = build("gpt2", tied=True)
    block = partition(model, 1)[0]
    flat = FlatBlock(model, block)
    flat.collect(lambda: step_backward(model))
    ours = flat.grad.clone() if flat.grad is not None else None
    flat.freeze()
    parameters = [model.get_parameter(name).requires_grad_() for name in block.parameters]
    expected = torch.autograd.grad(loss_of(model), parameters)
    torch.testing.assert_close(ours, torch.cat([g.reshape(-1) for g in expected]))


def test_gradients_of_bfloat16_models_are_summed_in_float32() -> None:
    model = build("llama").to(torch.bfloat16)
    flat = FlatBlock(model, partition(model, 1)[1])
    flat.collect(lambda: [step_backward(model, seed) for seed in range(4)])
    assert flat.grad is not None and flat.grad.dtype == torch.float32
    assert not torch.equal(flat.grad, flat.grad.bfloat16().float())


def test_a_block_that_is_only_mixed_has_no_gradient_buffer() -> None:
    model = build("llama")
    assert FlatBlock(model, partition(model, 1)[1]).grad is None


def test_a_block_on_two_devices_is_refused() -> None:
    model = build("llama")
    block = partition(model, 1)[1]
    layer = decoder_layers(model)[0]
    next(iter(layer.children())).to("meta")
    with pytest.raises(ModelError, match=r"block layers\.0 is spread over cpu, meta"):
        FlatBlock(model, block)


def test_origin_reads_any_range_and_each_tensor_once() -> None:
    """x0 of a block is read from a checkpoint from front to back, tensor by tensor, in float32."""
    model = build("llama").to(torch.bfloat16)
    block = partition(model, 1)[1]
    whole = torch.cat([model.get_parameter(name).detach().reshape(-1).float() for name in block.parameters])
    reads: list[str] = []

    def tensor(name: str) -> Tensor:
        reads.append(name)
        return model.get_parameter(name).detach()

    origin = origin_from(spans(model, block), tensor)
    parts = [origin(start, min(start + 100, block.elements)) for start in range(0, block.elements, 100)]
    assert torch.equal(torch.cat(parts), whole)
    assert reads == list(block.parameters)
    assert torch.equal(origin(3, block.elements - 3), whole[3:-3])


def test_spans_follow_the_block() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 1, bias=False)})
    found = spans(model, Block("any", ("a.bias", "a.weight", "b.weight"), 12))
    assert [(s.name, s.start, s.stop) for s in found] == [("a.bias", 0, 3), ("a.weight", 3, 9), ("b.weight", 9, 12)]
