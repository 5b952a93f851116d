"""Small models that see as well as read, and that text alone is to be trained on."""

from typing import Any

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Llama4Config,
    Llama4ForConditionalGeneration,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
)

from tests.numerics.model.small_models import SIZES

TEXT: dict[str, Any] = {**SIZES, "head_dim": 8}
TOWER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "patch_size": 14}
DEEP_TOWER: dict[str, Any] = {**TOWER, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}


def gemma3() -> PreTrainedModel:
    """Transformers' language model of this config is the whole model."""
    config = Gemma3Config(
        text_config={**TEXT, "sliding_window": 8},
        vision_config=DEEP_TOWER,
        mm_tokens_per_image=4,
        image_token_index=40,
    )
    return Gemma3ForConditionalGeneration(config)


def qwen3_5() -> PreTrainedModel:
    """Transformers' language model of this config is the text part alone."""
    linear = {f"linear_{name}": 2 for name in ("num_value_heads", "num_key_heads")}
    linear |= {f"linear_{name}": 8 for name in ("key_head_dim", "value_head_dim")}
    config = Qwen3_5Config(
        text_config={**TEXT, **linear, "layer_types": ["linear_attention", "full_attention"]},
        vision_config={**TOWER, "depth": 2, "num_heads": 2, "out_hidden_size": 16, "num_position_embeddings": 16},
        image_token_id=40,
        video_token_id=41,
        vision_start_token_id=42,
        vision_end_token_id=43,
    )
    return Qwen3_5ForConditionalGeneration(config)


def llama4() -> PreTrainedModel:
    """The same; its projector stands beside the text model, which has a head of its own."""
    config = Llama4Config(
        text_config={
            **TEXT,
            "num_local_experts": 2,
            "intermediate_size_mlp": 24,
            "layer_types": ["full_attention"] * 2,
            "attention_chunk_size": 16,
        },
        vision_config={**DEEP_TOWER, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
        image_token_index=40,
    )
    return Llama4ForConditionalGeneration(config)
