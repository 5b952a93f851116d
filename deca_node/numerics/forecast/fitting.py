"""What a model's files hold, in words, and how much memory is free."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from deca_node.numerics.device import choose_device, choose_devices
from deca_node.protocol.options import devices_of
from deca_node.storage.model_files import StoredTensor

CGROUP = Path("/sys/fs/cgroup")
NAMED_MAX = 3
"""How many parameters an error sentence names; the others are counted."""


def dtypes_text(stored: Mapping[str, StoredTensor]) -> str:
    """The dtypes of the stored numbers, the most frequent first: ``BF16`` or ``F32, F16``."""
    counts = Counter(dict.fromkeys({tensor.dtype for tensor in stored.values()}, 0))
    for tensor in stored.values():
        counts[tensor.dtype] += tensor.elements
    return ", ".join(dtype for dtype, _ in counts.most_common())


def named(items: list[str]) -> str:
    """The first few items, and how many more there are."""
    more = f" and {len(items) - NAMED_MAX} more" if len(items) > NAMED_MAX else ""
    return "; ".join(items[:NAMED_MAX]) + more


def device_kind(wanted: str) -> str:
    """``cpu`` or ``cuda`` for a setting, which need not be the device of this machine; ``auto`` is this machine's."""
    return choose_device(wanted).type if wanted == "auto" else wanted.partition(":")[0]


def planned_ranks(device: str, devices: str, elsewhere: int = 0) -> tuple[str, int]:
    """The kind of the ranks' devices for the two settings, and their number, with those ``elsewhere``. They need not be
    on this machine, unless the settings mean all that are here."""
    if not devices:
        return device_kind(device), 1 + elsewhere
    wanted = devices_of(devices)
    kind = device_kind(wanted.kind)
    return kind, elsewhere + (wanted.count or (torch.cuda.device_count() if kind == "cuda" else 1) or 1)


def free_memory(device: str, devices: str) -> tuple[str, int | None]:
    """The device that a node with these settings takes, and its free bytes (None: unknown). Of several GPUs it is the
    one with the least.

    Raises TrainerError where there is no such device.
    """
    found = choose_devices(device, devices)
    if found[0].type == "cuda":
        free, index = min((torch.cuda.mem_get_info(each.index or 0)[0], each.index or 0) for each in found)
        return f"cuda:{index}", free
    return found[0].type, _free_ram()


def _free_ram() -> int | None:
    """Bytes that the system could still give, within the container's limit where there is one."""
    found = [free for free in (_available(Path("/proc/meminfo")), _left_of_limit(CGROUP)) if free is not None]
    if found:
        return min(found)
    # Other systems than Linux: all memory there is, used or not.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _left_of_limit(cgroup: Path) -> int | None:
    """Bytes left of the container's limit (control groups, version 2). Caches that could be dropped count as free."""
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used + int(stat.get("inactive_file", 0)), 0)
