"""A process that may take little memory, reads data and trains on them: ``python -m ... DATA FOLDER MEBIBYTES``.

The limit is that of the system for memory that is no page of a file (RLIMIT_DATA), above what the process has when its
libraries are loaded. FOLDER is empty for tokens in memory. All that is done in steps of a fixed size is done in small
ones, so that a few megabytes of data show what gigabytes would.
"""

import resource
import sys
from pathlib import Path

import torch

from deca_node.numerics.data import packing, sequences, tokenizing
from deca_node.numerics.data.batches import Batches, heldout_batches
from deca_node.numerics.data.dataset import Layout, load_dataset
from deca_node.numerics.data.store import scratch
from tests.numerics.data.byte_tokens import byte_tokenizer

MIB = 1 << 20


def main(data: Path, folder: Path | None, mebibytes: int) -> None:
    """Read, and make the batches of a part of an epoch. Prints how many tokens there are."""
    tokenizer = byte_tokenizer()
    torch.zeros(1)
    tokenizing._CALL_CHARACTERS = 1 << 16
    scratch.IN_MEMORY_BYTES, scratch.CHUNK = 1 << 20, 1 << 14
    sequences.COUNTED_TOGETHER, packing.DIVIDED_TOGETHER = 1 << 16, 1 << 10
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    limit = int(status["VmData"].split()[0]) * 1024 + mebibytes * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    layout = Layout(length=64, packing="isolated", truncation="keep-end", private=False)
    found = load_dataset(data, tokenizer, layout, holdout=0.1, bad_records="stop", store=folder)
    batches = Batches(found.train, 8, seed=0)
    for _ in range(200):
        batches.next()
    sum(1 for _ in heldout_batches(found, 8, 64))
    sys.stdout.write(f"{found.summary.tokens}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, int(sys.argv[3]))
