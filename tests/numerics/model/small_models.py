"""Small models of several architectures, and folders that transformers itself wrote."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 48
TOKENS = 40  # fewer than the model has rows, as in most checkpoints
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def qwen2() -> PreTrainedModel:
    """Input and output embeddings are tied."""
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))


def gpt2() -> PreTrainedModel:
    """Tied embeddings, biases, learned positions and dropout."""
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=1))


def small_tokenizer(tokens: int = TOKENS) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(tokens)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


def folder_of(model: PreTrainedModel, folder: Path, **how: Any) -> Path:
    """A checkpoint with a tokenizer, written by transformers itself."""
    model.save_pretrained(folder, **how)
    small_tokenizer().save_pretrained(folder)
    return folder
