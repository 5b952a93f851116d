"""What the environment must say before torch and the tokenizers are imported, in a process that trains."""

import os


def set_before_torch(threads: int) -> None:
    """Set it, where nobody has set it already. ``threads`` is the number of CPU threads; 0: one per core."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ["RAYON_NUM_THREADS"] = str(threads)
    # Several nodes may share one machine's cores, and spinning threads would starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The tokenizer's threads work only while data are read, and sleep afterwards.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Have torch ask for huge pages for tensors of 2 MiB and more: encoding differences is bound by memory, and takes
    # about a sixth less time on huge pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
