"""Data of all kinds, made by a rule, and what a trainer would see of them as one hash."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

from deca_node.numerics.data.batches import Batch, Batches, heldout_batches
from deca_node.numerics.data.dataset import Layout, PackedData, load_dataset
from tests.numerics.data.byte_tokens import PLAIN_TEMPLATE, byte_tokenizer

WORDS = tuple("the model reads a record and learns what it says of wind rain snow light stone river".split())  # noqa: SIM905


def words(rng: Random, most: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def texts(rng: Random) -> list[Any]:
    return [{"text": words(rng, 30)} for _ in range(120)]


def few_long_texts(rng: Random) -> list[Any]:
    return [{"text": " ".join(words(rng, 30) for _ in range(40))} for _ in range(5)]


def prompts(rng: Random) -> list[Any]:
    return [{"prompt": words(rng, 12), "completion": words(rng, 12)} for _ in range(90)]


def mixed(rng: Random) -> list[Any]:
    """Texts, prompts, chats; among them one that is far larger than the others, and one that is malformed."""
    chats = [
        {"messages": [{"role": role, "content": words(rng, 9)} for _ in range(3) for role in ("user", "assistant")]}
        for _ in range(30)
    ]
    found = [*texts(rng)[:40], *prompts(rng)[:40], *chats, {"prompt": "?", "completion": words(rng, 4000)}, {"text": 3}]
    rng.shuffle(found)
    return found


CORPORA = {"texts": texts, "few long texts": few_long_texts, "prompts": prompts, "mixed": mixed}


def write(folder: Path, kind: str) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in CORPORA[kind](Random(kind))))
    return path


def loaded(path: Path, packing: str, *, bos: bool, private: bool = False, **more: Any) -> PackedData:
    layout = Layout(length=64, packing=packing, truncation=more.pop("truncation", "keep-end"), private=private)
    tokenizer = byte_tokenizer(PLAIN_TEMPLATE, bos=bos)
    return load_dataset(path, tokenizer, layout, holdout=0.1, seed=5, bad_records="skip", **more)


def seen(data: PackedData) -> str:
    """A hash of the first batches of two epochs and of everything that is held out."""
    digest = hashlib.sha256()
    batches = Batches(data.train, 7, 11)
    count = 2 * len(data.train) // 7 + 1
    for batch in [*(batches.next() for _ in range(count)), *heldout_batches(data, 5)]:
        assert isinstance(batch, Batch)
        for tensor in (batch.input_ids, batch.labels, batch.positions):
            if tensor is not None:
                digest.update(str(tuple(tensor.shape)).encode())
                digest.update(tensor.numpy().tobytes())
    told = data.summary
    counts = (told.records, told.skipped, told.tokens, told.trained_tokens, told.heldout_tokens, told.empty_sequences)
    lengths = told.lengths
    if lengths is not None:
        counts += (lengths.divided, lengths.cut, lengths.cut_learnt, lengths.dropped, lengths.unlearnt)
    digest.update(str(counts).encode())
    return digest.hexdigest()[:16]
