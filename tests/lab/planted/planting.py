"""Storms in a process that has imported one module with a planted fault.

Other modules import names out of the faulty one. So the fault is planted before anything else is imported: by a finder
that gives the import system another source.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

from tests.lab.planted.faults import FAULTS, ROOT, Fault


class _Planted(importlib.abc.SourceLoader):
    """Loads a module with its fault. It keeps and reads no compiled file."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def get_filename(self, fullname: str) -> str:
        return str(self._fault.path)

    def get_data(self, path: str) -> bytes:
        return self._fault.plant(self._fault.path.read_text("utf-8")).encode()


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._fault.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._fault.path, loader=_Planted(self._fault))


@dataclass(frozen=True)
class Found:
    """The storms that ran with a fault, and the first that found it (None: none did), with the last line of its
    failure."""

    fault: str
    storms: int
    seed: int | None
    how: str
    seconds: float


def storms_with(fault: Fault, seeds: Iterable[int]) -> Found:
    """Run storms with a fault, in a process of their own, until one of them fails."""
    command = [sys.executable, "-m", "tests.lab.planted.planting", fault.name, *map(str, seeds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the process of {fault.name} failed:\n{done.stderr}"
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Plant the fault of the first argument, run the storms of the others, and print what was found."""
    name, *seeds = sys.argv[1:]
    fault = next(fault for fault in FAULTS if fault.name == name)
    assert fault.module not in sys.modules, f"{fault.module} was imported before the fault was planted"
    sys.meta_path.insert(0, _Finder(fault))
    from deca_node.lab.sim.storms import weathered

    began, how, found, ran = time.perf_counter(), "", None, 0
    for seed in map(int, seeds):
        ran += 1
        try:
            weathered(seed)
        except Exception as problem:  # noqa: BLE001 - whatever a fault leads to, the storm has found it
            found, how = seed, f"{type(problem).__name__}: {problem}".splitlines()[0]
            break
    result = {"fault": name, "storms": ran, "seed": found, "how": how, "seconds": time.perf_counter() - began}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
