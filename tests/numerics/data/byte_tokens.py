"""A tokenizer with one token per byte, so that tokens can be read, and chats to tokenize with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from deca_node.numerics.data.formats.sources import BadRecords, Source
from deca_node.numerics.data.records import Record
from deca_node.numerics.data.sequences import RecordTokens, Tokens
from deca_node.numerics.data.tokenizing import RecordTokenizer

SOURCE = Source(Path("notes.jsonl"), 3)
BOS, EOS = 256, 257

PLAIN_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}|\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
MARKED_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' %}"
    "{%- generation -%}{{ m['content'] }}|\n{% endgeneration %}"
    "{% else %}{{ m['content'] }}|\n{% endif %}{% endfor %}"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How do you dö?"},
    {"role": "assistant", "content": "Fine 😀."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Still fine."},
    {"role": "user", "content": "Thanks."},
]


def byte_tokenizer(
    template: str | None = None, bos: bool = False, eos: bool = True, specials: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """One token per byte, then ``<s>``, ``</s>`` and ``specials``; with ``bos`` it puts ``<s>`` before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>", *specials])
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    ends = {"bos_token": "<s>"} | ({"eos_token": "</s>"} if eos else {})
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **ends)


def encode(record: Record, tokenizer: PreTrainedTokenizerFast) -> RecordTokens:
    (tokens,) = RecordTokenizer(tokenizer, BadRecords(skip=False)).encode([record])
    assert tokens.ids.dtype == np.int32 and tokens.trained.dtype == np.bool_
    return tokens


def text_of(ids: Any) -> str:
    return str(byte_tokenizer().decode(ids, clean_up_tokenization_spaces=False))


def trained_text(tokens: Tokens) -> str:
    return text_of(tokens.ids[tokens.trained])
