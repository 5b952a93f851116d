"""The traced memory of a step against what autograd really keeps, for layers that no formula of ours describes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
)

from deca_node.numerics.data.batches import Batch
from deca_node.numerics.forecast import tracing
from deca_node.numerics.forecast.shapes import model_shape
from deca_node.numerics.forecast.tracing import Trace, with_activations
from deca_node.numerics.learning.loss import nll_sum
from deca_node.numerics.model.blocks import FlatBlock, partition
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.case import Case, Curve, Machine
from deca_node.protocol.planning.memory import activation_bytes

LENGTH, SEQUENCES, VOCABULARY = 192, 2, 64
RUN = RunSettings(sequence_length=LENGTH, batch_size=SEQUENCES, dtype="float32")
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, **SPECIAL}
HEADS = {"num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 256}
MAMBA = {"state_size": 8, "expand": 2}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES, **HEADS),
    "eager attention": lambda: Gemma2Config(**SIZES, **HEADS, head_dim=8, num_key_value_heads=4, sliding_window=64),
    "dropout in attention": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=256, **SPECIAL
    ),
    "experts": lambda: Qwen3MoeConfig(
        **SIZES, **HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8
    ),
    "one key for all heads": lambda: FalconConfig(
        **SIZES, num_attention_heads=4, multi_query=True, new_decoder_architecture=False, bias=False
    ),
    "state space": lambda: MambaConfig(**SIZES, **MAMBA, time_step_rank=4),
    "state space in chunks": lambda: Mamba2Config(**SIZES, **MAMBA, num_heads=8, head_dim=8, n_groups=1, chunk_size=64),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def trace(model: PreTrainedModel, run: RunSettings, attention: str = "auto", device: str = "cpu") -> Trace | None:
    return tracing.trace(model, run, attention=attention, device=device)


def planned(config: PreTrainedConfig, *, checkpointing: bool = False, attention: str = "auto") -> list[int]:
    """The plan's activations, block by block."""
    model = on_meta(config)
    traced = trace(model, RUN, attention)
    assert traced is not None
    shape = with_activations(model_shape(model, 1), traced)
    machine = Machine(micro_batch=0, gradient_checkpointing=checkpointing)
    case = Case.of(RUN, shape, ["alone"], machine)
    return [activation_bytes(case, block) for block in shape.blocks]


def kept(model: PreTrainedModel, flat: FlatBlock) -> int:
    """What autograd keeps of a forward pass beside the parameters, each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = tensor
        return tensor

    tokens = torch.randint(3, VOCABULARY, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = nll_sum(model, Batch(tokens, tokens), torch.device("cpu"))
    flat.collect(loss.backward)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_plan_is_near_what_autograd_keeps(kind: str) -> None:
    """For the block that crosses all layers, and for one in the middle. The plan also has what is there for a moment
    only, and the mask that keeps records apart."""
    config = CONFIGS[kind]()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    found = planned(config)
    for number in (1, 2):
        flat = FlatBlock(model, partition(model, 1)[number])
        real = kept(model, flat)
        assert 0.8 * real < found[number] < 1.7 * real
        flat.freeze()


def test_the_plan_counts_the_setting_attention() -> None:
    """Eager attention beside what autograd keeps of it, and the same model with fused attention, far below."""
    config = LlamaConfig(**SIZES, **HEADS)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").train()
    flat = FlatBlock(model, partition(model, 1)[0])
    real = kept(model, flat)
    eager, fused = (planned(config, attention=how)[0] for how in ("eager", "sdpa"))
    assert 0.8 * real < eager < 1.7 * real
    assert fused < real / 1.5


def test_eager_attention_grows_with_the_square_of_the_length() -> None:
    traced, fused = (trace(on_meta(CONFIGS["llama"]()), RUN, attention=how) for how in ("eager", "sdpa"))
    assert traced is not None and fused is not None
    # Weights in float32 for each of four heads, at the very least.
    assert all(curve.square >= 4 * 4 for curve in traced.kept)
    assert all(curve.square <= 4 + 1e-6 for curve in fused.kept), "a mask"


def test_dropout_keeps_attention_from_being_fused_on_a_cpu_only() -> None:
    on_cpu, on_gpu = (trace(on_meta(CONFIGS["dropout in attention"]()), RUN, device=kind) for kind in ("cpu", "cuda"))
    assert on_cpu is not None and on_gpu is not None
    assert on_cpu.kept[0].square > 4 * 4 > on_gpu.kept[0].square


def test_a_classifier_is_traced() -> None:
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(**SIZES, **HEADS))
    assert trace(model, RUN) is not None


def test_the_model_is_as_before() -> None:
    model = on_meta(LlamaConfig(**{**SIZES, "num_hidden_layers": 6}, **HEADS, dtype="bfloat16"))
    names, ids = [name for name, _ in model.named_parameters()], [id(p) for p in model.parameters()]
    traced = trace(model, RUN)
    assert traced is not None and len(traced.kept) == 6
    assert [name for name, _ in model.named_parameters()] == names
    assert [id(parameter) for parameter in model.parameters()] == ids
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradient_checkpointing_keeps_inputs_and_one_layer() -> None:
    config = LlamaConfig(**{**SIZES, "num_hidden_layers": 12}, **HEADS)
    whole, checkpointed = planned(config)[0], planned(config, checkpointing=True)[0]
    inputs = 12 * 4 * 32 * LENGTH * SEQUENCES
    assert inputs < checkpointed < whole / 2


class Asking(nn.Module):
    """Four experts, each of which gets the rows that the others do not, as some architectures have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        chosen = rows[:, :4].argmax(dim=1)
        counts = torch.stack([(chosen == expert).sum() for expert in range(4)]).tolist()
        if (chosen < 0).any():
            raise AssertionError("there are no such experts")
        sorted_rows = rows[chosen.argsort()]
        parts = [expert(part) for expert, part in zip(self.experts, sorted_rows.split(counts), strict=True)]
        return torch.cat(parts).view_as(states)


def test_an_architecture_that_asks_for_numbers_is_traced() -> None:
    def asking(model: PreTrainedModel) -> PreTrainedModel:
        for layer in model.model.layers:
            layer.mlp = Asking(32)
        return model

    config = CONFIGS["llama"]()
    with torch.device("meta"):
        traced = trace(asking(on_meta(config)), RUN)
    assert traced is not None
    real_model = asking(AutoModelForCausalLM.from_config(config, dtype=torch.float32)).train()
    flat = FlatBlock(real_model, partition(real_model, 1)[1])
    real = kept(real_model, flat)
    planned = sum(curve.at(SEQUENCES, LENGTH) for curve in (traced.own[0], *traced.kept[1:], traced.top))
    assert 0.8 * real < planned < 2.2 * real


def test_what_cannot_be_traced_is_estimated() -> None:
    class Peeking(nn.Module):
        def forward(self, states: Tensor, *_: object, **__: object) -> Tensor:
            return torch.from_numpy(states.detach().numpy()) * states

    model = on_meta(CONFIGS["llama"]())
    model.model.layers[0].mlp = Peeking()
    assert trace(model, RUN) is None
    shape = model_shape(model, 1)
    assert with_activations(shape, None) == shape
    assert len(model.model.layers) == 3


def test_a_curve_goes_through_its_points() -> None:
    curve = Curve.through((64, 128, 256), [5 + 3 * n + 2 * n * n for n in (64, 128, 256)])
    assert (curve.fixed, curve.linear, curve.square) == pytest.approx((5, 3, 2))
    assert curve.at(3, 10) == 3 * (5 + 30 + 200)
    assert Curve.mean([Curve(1, 2, 3), Curve(3, 4, 5)]) == Curve(2, 3, 4)
