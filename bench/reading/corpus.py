"""Text of any size that no two lines of are the same, a BPE tokenizer made for it, and a tiny Llama.

Words are syllables put together, and are drawn by Zipf's law, as in a language; one word in 64 is a number that occurs
once. So a tokenizer that remembers words is as useful as for real text, and has new ones to divide.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 32_768
WORDS_PER_RECORD = 180
RECORDS_TOGETHER = 2_000
SAMPLE_BYTES = 4 << 20
SYLLABLES = [a + b for a in "bdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is", "on", "ul")]


@dataclass(frozen=True)
class Language:
    """So many ``words`` of ``shortest`` to ``longest`` syllables; the most frequent are the shortest. ``bytelevel``
    divides text as GPT-2 and Llama 3 do, otherwise as Llama 2 does, which takes a third of the time per byte."""

    words: int
    shortest: int
    longest: int
    bytelevel: bool

    def vocabulary(self, rng: np.random.Generator) -> np.ndarray:
        """Different words."""
        counts = rng.integers(self.shortest, self.longest + 1, 2 * self.words)
        words = sorted({"".join(rng.choice(SYLLABLES, count)) for count in counts})
        return np.array(sorted(rng.permutation(words)[: self.words].tolist(), key=len))

    def lines(self, seed: int) -> Iterator[bytes]:
        """JSON Lines without end, some thousands of records at a time."""
        words = self.vocabulary(np.random.default_rng(0))
        rng = np.random.default_rng(seed)
        chances = 1.0 / np.arange(1, len(words) + 1)
        edges = np.cumsum(chances / chances.sum())
        while True:
            lengths = rng.integers(WORDS_PER_RECORD // 3, 2 * WORDS_PER_RECORD, RECORDS_TOGETHER)
            drawn = words[np.minimum(np.searchsorted(edges, rng.random(int(lengths.sum()))), len(words) - 1)].tolist()
            drawn[::64] = map(str, rng.integers(1 << 40, size=len(drawn[::64])).tolist())
            ends = np.cumsum(lengths).tolist()
            records = (" ".join(drawn[low:high]) for low, high in zip([0, *ends], ends, strict=False))
            yield "".join(f'{{"text": "{text}."}}\n' for text in records).encode()


USUAL = Language(40_000, 1, 5, bytelevel=True)
"""About 4.4 bytes per token, as English has with a vocabulary of this size."""
LONG = Language(8_000, 3, 6, bytelevel=False)
"""About 11 bytes per token, so that gigabytes are tokenized in minutes."""


def write_corpus(path: Path, size: int, seed: int, language: Language) -> None:
    """A file of at least ``size`` bytes."""
    written = 0
    with path.open("wb") as file:
        for chunk in language.lines(seed):
            written += file.write(chunk)
            if written >= size:
                return


def write_model(folder: Path, seed: int, language: Language) -> None:
    """A Llama of about 4 million parameters with a tokenizer that learnt from the corpus."""
    sample: list[str] = []
    size = 0
    for chunk in language.lines(seed + 1):
        sample += [json.loads(line)["text"] for line in chunk.splitlines()]
        size += len(chunk)
        if size >= SAMPLE_BYTES:
            break
    backend = Tokenizer(models.BPE())
    if language.bytelevel:
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(sample, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
