"""A small config for any family: sizes are recognised by their names in the config's own signature.

Settings that follow from others (such as the kind of every layer) are left to the config. What the rules get wrong for
a family stands in ``SPECIAL``.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY = 128
LAYERS = 4
WIDTH = 64
POSITIONS = 1024

RULES: Mapping[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "text_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "model_dim", "emb_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("embedding_size", "d_embed", "attention_hidden_size", "embed_dim"), WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_inner", "d_ff", "ffn_hidden_size"), 96),
    **dict.fromkeys(("intermediate_size_mlp", "shared_intermediate_size", "dense_intermediate_size", "dim_ff"), 96),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "expert_ffn_hidden_size", "mlp_hidden_size"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "moe_shared_intermediate_size"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_intermediate_size", "block_ff_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers", "num_encoder_layers", "depth"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "linear_num_value_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "swa_num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "attention_head_dim", "global_head_dim", "kv_channels", "d_kv", "v_head_dim"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "swa_head_dim", "swa_v_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim",), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "laurel_rank", "lora_rank"), 16),
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("num_shared_experts", "num_nextn_predict_layers"), 1),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length"), POSITIONS
    ),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_ssm", "conv_dim", "conv_dim_out", "lru_width"), 128),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank"), 4),
    **dict.fromkeys(("attention_window", "sliding_window", "sliding_window_size", "attention_chunk_size"), 64),
    **dict.fromkeys(("hidden_size_per_layer_input",), 16),
    **dict.fromkeys(("pad_token_id",), 0),
    **dict.fromkeys(("bos_token_id", "decoder_start_token_id", "cls_token_id", "sos_token_id"), 1),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    **dict.fromkeys(("image_size",), 28),
    **dict.fromkeys(("patch_size",), 14),
}
"""Sizes by name. A name counts only where the family's config has it with a number in its signature."""

ONE_TO_ONE = {"num_key_value_heads": 4}
GROUPED = {"head_dim": 16, "num_key_value_heads": 2}
MUSIC = {"text_encoder": {"model_type": "t5"}, "audio_encoder": {"model_type": "encodec"}}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
NOTE = {**ONE_TO_ONE, "per_layer_config": None, "head_dim": 24}
SEEING = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
INDEXED = {"ple_embed_dim": 16, "heads_per_ngram": 2, "ngram_vocab_size_base": 64, "split_ngram_parts": 1}
INDEXED |= {"make_ngram_vocab_size_divisible_by": 8, "hc_lowrank": 16, "indexer_n_heads": 2, "indexer_kv_heads": 1}
INDEXED |= {"indexer_head_dim": 16, "indexer_budget": 32, "indexer_compress_ratio": 4}
BYTES = {"vocab_size": 260, "hidden_size": WIDTH, "intermediate_size": 96, "num_attention_heads": 4}
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"), ONE_TO_ONE),
    **dict.fromkeys(("minicpm3", "mistral4", "youtu"), ONE_TO_ONE),
    "kimi_linear": {**ONE_TO_ONE, "linear_head_dim": 16, "linear_num_heads": 4},
    "gemma4_unified": {
        "vision_config": {"patch_size": 2, "mm_embed_dim": WIDTH, "mm_posemb_size": 16},
        "audio_config": {"audio_embed_dim": 16},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"hidden_size": WIDTH, "ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "emu3": {
        "vocabulary_map": {"<image>": 3, "<|extra_200|>": 4, "<|visual token 000000|>": 5},
        "vq_config": {"codebook_size": 8, "base_channels": 32, "hidden_size": 32, "num_res_blocks": 1},
    },
    "phi4_multimodal": {
        "vision_config": {**SEEING, "image_size": 28, "crop_size": 28, "patch_size": 14},
        "audio_config": {
            "hidden_size": WIDTH,
            "intermediate_size": 96,
            "num_blocks": 2,
            "num_attention_heads": 4,
            "ext_pw_out_channel": WIDTH,
            "depthwise_separable_out_channel": WIDTH,
            "nemo_conv_channels": 16,
        },
    },
    "dots3_note": {
        "text_config": NOTE,
        "vision_config": {"pyramid_num_routed": [0] * LAYERS, "adapter_in_dim": WIDTH, "adapter_out_dim": WIDTH},
        "audio_config": {"adapter_input_size": WIDTH, "adapter_out_dim": WIDTH, "downsample_hidden_size": 16},
    },
    "dots3_note_text": NOTE,
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2), "num_dense_layers": 1},
    "lilt": {"hidden_size": 96},
    "layoutlmv3": {"hidden_size": 96, "coordinate_size": 16, "shape_size": 16, "input_size": 28, "patch_size": 14},
    "llama4": {
        "vision_config": {
            **SEEING,
            "vision_output_dim": WIDTH,
            "projector_input_dim": WIDTH,
            "projector_output_dim": WIDTH,
            "image_size": 28,
            "patch_size": 14,
        }
    },
    "luke": {"entity_vocab_size": 16, "entity_emb_size": 16},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "chunk_size": 32},
    **dict.fromkeys(("ministral", "nemotron"), GROUPED),
    "perceiver": {
        "num_latents": 16,
        "d_latents": 64,
        "num_self_attends_per_block": LAYERS,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
    },
    **dict.fromkeys(("musicgen", "musicgen_melody"), MUSIC),
    "gemma4_assistant": {
        "text_config": {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": LAYERS,
        },
        "backbone_hidden_size": WIDTH,
    },
    "qwen4_exp": {"text_config": INDEXED},
    "qwen4_exp_text": INDEXED,
    "reformer": {
        "attn_layers": ["local", "lsh"] * (LAYERS // 2),
        "axial_pos_embds": False,
        "feed_forward_size": 96,
        "attention_head_size": 16,
        "num_buckets": 4,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_head_dim": 32, "layers_block_type": ["mamba", "hybrid"] * (LAYERS // 2)},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * (LAYERS // 2),
        "mamba_ngroups": 2,
        "adapter_rank": 8,
        "chunk_size": 32,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
    "roc_bert": {
        "pronunciation_embed_dim": 16,
        "pronunciation_vocab_size": 16,
        "shape_embed_dim": 16,
        "shape_vocab_size": 16,
    },
    **{key: {"rotary_dim": 8} for key in ("codegen", "gptj")},
    **{key: {"head_dim": 16} for key in ("hunyuan_v1_dense", "hunyuan_v1_moe")},
    **{key: {"num_kv_shared_layers": 0} for key in ("gemma3n_text", "gemma4_unified_assistant")},
    "blt": {
        "encoder_hash_byte_group_vocab": 64,
        "vocab_size": 260,
        "patcher_config": {**BYTES, "num_hidden_layers": 2},
        "encoder_config": {**BYTES, "hidden_size_global": WIDTH, "num_hidden_layers": 1},
        "decoder_config": {**BYTES, "hidden_size_global": WIDTH, "num_hidden_layers": 2},
        "global_config": {**BYTES, "num_hidden_layers": LAYERS},
    },
    "ctrl": {"dff": 96},
    "deepseek_v2": {**ONE_TO_ONE, "num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "esm": {"vocab_size": VOCABULARY, "mask_token_id": 3},
    "longcat_flash": {**ONE_TO_ONE, "head_dim": 8, "ffn_hidden_size": 96, "expert_ffn_hidden_size": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
}
"""What the rules get wrong, by family; a nested mapping is for a config within the config."""


def tiny_config(family: str) -> PreTrainedConfig:
    """A small config of a family. Raises what the config's own checks raise."""
    return _config(CONFIG_MAPPING[family], SPECIAL.get(family, {}))


def _config(kind: type[PreTrainedConfig], special: Mapping[str, Any]) -> PreTrainedConfig:
    named = inspect.signature(kind.__init__).parameters
    chosen = {name: _like(value, named[name].default) for name, value in RULES.items() if _is_size(named, name)}
    for name in kind.sub_configs:
        part = _part(kind, name, special)
        if name in named and part:
            chosen[name] = _config(part, special.get(name, {}))
    given = {name: value for name, value in special.items() if name not in (*kind.sub_configs, "model_type")}
    return kind(**{**chosen, **given})


def _part(kind: type[PreTrainedConfig], name: str, special: Mapping[str, Any]) -> type[PreTrainedConfig] | None:
    """The class of a config within a config. Where any kind will do, ``special`` names one, or the family itself."""
    if "Auto" not in kind.sub_configs[name].__name__:
        return kind.sub_configs[name]
    free = getattr(kind, "sub_configs_defaults", {}).get(name)
    model_type = special.get(name, {}).get("model_type") or getattr(free, "model_type", None)
    return CONFIG_MAPPING[model_type] if model_type else None


def _is_size(named: Mapping[str, inspect.Parameter], name: str) -> bool:
    if name not in named:
        return False
    default = named[name].default
    ids = name.endswith("_token_id")
    return (isinstance(default, int) and not isinstance(default, bool)) or (ids and default is None) or _sizes(default)


def _sizes(default: Any) -> bool:
    return isinstance(default, list | tuple) and bool(default) and all(isinstance(each, int) for each in default)


def _like(value: Any, default: Any) -> Any:
    return [value] * LAYERS if _sizes(default) else value
