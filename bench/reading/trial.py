"""One way to read a corpus, in a process of its own: ``python -m bench.reading.trial WAY CORPUS MODEL FOLDER``.

It prints a line of JSON: tokens, seconds, seconds of CPU, and the memory at the end that is this process's own.
"""

import json
import os
import sys
import time
from pathlib import Path

import psutil

from bench.harness import MIB

BATCH = 1000
"""Records per call of ``datasets.map``: its default."""


def main(way: str, corpus: Path, model: Path, folder: Path) -> None:
    """Read the corpus once, and report."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer(["warm", "up"])
    began, cpu = time.perf_counter(), time.process_time()
    tokens = (stored if way == "store" else mapped)(corpus, tokenizer, folder)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    own = psutil.Process().memory_info()
    print(
        json.dumps(
            {
                "way": way,
                "tokens": tokens,
                "seconds": seconds,
                "cpu_seconds": cpu,
                "own_mib": (own.rss - own.shared) / MIB,
            }
        )
    )


def stored(corpus: Path, tokenizer: object, folder: Path) -> int:
    """This project's way: read, tokenized, written, mapped."""
    from deca_node.numerics.data.store.tokens import Tokenizing

    return len(Tokenizing([corpus], tokenizer, bad_records="stop").stored(folder / "tokens").line)  # type: ignore[arg-type]


def mapped(corpus: Path, tokenizer: object, folder: Path) -> int:
    """``datasets``: read into its cache, then ``map`` with end of text behind every record, as tools write it."""
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset("json", data_files=str(corpus), split="train", cache_dir=str(folder / "cache"))
    end = tokenizer.eos_token_id  # type: ignore[attr-defined]

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False)  # type: ignore[operator]
        return {"input_ids": [[*one, end] for one in ids["input_ids"]]}

    done = found.map(encode, batched=True, batch_size=BATCH, remove_columns=found.column_names)
    import pyarrow.compute as pc

    return int(sum(pc.sum(pc.list_value_length(chunk)).as_py() for chunk in done.data.column("input_ids").chunks))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
