"""Small classifiers and labelled records, for tests."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

SPECIAL = ("<pad>", "<eos>", "<sep>", "<cls>", "<unk>")
WORDS = tuple(f"w{number}" for number in range(25))
VOCABULARY = len(SPECIAL) + len(WORDS)
LABELS = ("neg", "mid", "pos")
LENGTH = 16

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def word_tokenizer(pairs: bool = True, **more: str) -> PreTrainedTokenizerFast:
    """A token per word; like BERT's with ``pairs``, else like a decoder's, which knows an end of text only."""
    backend = Tokenizer(models.WordLevel({w: k for k, w in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if not pairs:
        return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>", **more)
    backend.post_processor = processors.BertProcessing(("<sep>", 2), ("<cls>", 3))
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "sep_token": "<sep>", "cls_token": "<cls>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(special | more))


def bert() -> PreTrainedModel:
    """An encoder without a head, as sentence encoders are published."""
    return BertModel(BertConfig(**SIZES, max_position_embeddings=LENGTH, pad_token_id=0))


def roberta() -> PreTrainedModel:
    """An encoder with another head, whose classifier's head has two layers."""
    return RobertaForMaskedLM(
        RobertaConfig(**SIZES, max_position_embeddings=LENGTH + 1, type_vocab_size=1, pad_token_id=0)
    )


def llama() -> PreTrainedModel:
    """A decoder that knows of no padding."""
    sizes = {"num_key_value_heads": 1, "max_position_embeddings": LENGTH, "bos_token_id": None, "eos_token_id": 1}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **sizes))


def gpt2() -> PreTrainedModel:
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1))


def write_model(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """An ordinary checkpoint, written by transformers alone, with a decoder's tokenizer or an encoder's."""
    model.save_pretrained(folder)
    tokenizer = tokenizer or word_tokenizer(pairs=model.config.model_type not in ("llama", "gpt2"))
    tokenizer.save_pretrained(folder)
    return folder


def write_records(path: Path, records: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def learnable_records(count: int, seed: int = 0, labels: tuple[str, ...] = LABELS) -> list[dict[str, str]]:
    """Texts whose label is the word that occurs twice; one in four is a pair."""
    draw = torch.Generator().manual_seed(seed)
    records = []
    for number in range(count):
        label = int(torch.randint(len(labels), (), generator=draw))
        words = [WORDS[5 + int(k)] for k in torch.randint(20, (int(3 + number % 5),), generator=draw)]
        record = {"text": " ".join([WORDS[label], *words, WORDS[label]]), "label": labels[label]}
        records.append(record | ({"text_pair": "w4 w4"} if number % 4 == 0 else {}))
    return records
