"""Runs the parts of ``make check`` or ``make test``, all of them even after a failure, and prints a summary at the end.

::

    make check  =  format  lint  types  dockerfile  docs  house
    make test   =  the same, then  unit,  e2e  and, where an engine has the image,  image

A part is a command, and its output goes to the terminal unchanged. The exit code is 1 if any part failed.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parent.parent
COULD_NOT_START = 127
"""The exit code of a shell that does not find a program."""
PARALLEL = "-n logical --maxprocesses 8"
UNIT_WORKERS = min((os.cpu_count() or 1) + 1, 8)
"""A part of their time unit tests wait for a process, a socket or the disk, so there is a worker more than there are
cores."""

CHECKS = {
    "format": "ruff format --check .",
    "lint": "ruff check .",
    "types": "mypy",
    "dockerfile": "hadolint docker/Dockerfile",
    # Every link and anchor of the documentation, also those into pages beside docs/.
    "docs": "python -m mkdocs build --strict --quiet",
    # The import contracts, fresh generated files, pinned dependencies, links in documents; the files for Kubernetes.
    "house": f'pytest -q -m "not slow" tests/test_house.py tests/deploy {PARALLEL}',
}
UNIT_TESTS = "--ignore tests/test_house.py --ignore tests/deploy --ignore tests/e2e"
TESTS = {
    "unit": f'pytest -m "not slow" {UNIT_TESTS} -n {UNIT_WORKERS} --dist loadfile',
    # Three tests at a time take longer than two on two cores, and nodes then wait for each other.
    "e2e": 'pytest -m "not slow" tests/e2e -n 2 --dist worksteal',
}
GROUPS = {"check": CHECKS, "test": CHECKS | TESTS}
IMAGE = {"image": "python tools/image_test.py --short"}
"""The part that needs a container engine, with the layers of an earlier `make image-test`."""

IMAGE_TAG = "deca-node:image-test"
LAYERS = ("constraints.txt", "pyproject.toml", "docker/Dockerfile", "docker/install.sh")
"""The files from which the layers below the project are made. Where they have changed, a build downloads torch."""

LAYERS_LABEL = "deca-node.layers"
"""The image's label with the sum of these files."""
ENGINE_SECONDS = 20


@dataclass(frozen=True)
class Outcome:
    """The outcome of one part: its name, the exit code of its command, and its duration."""

    part: str
    code: int
    seconds: float


def main() -> int:
    """Run a group of parts. Returns 1 if any of them failed."""
    parser = argparse.ArgumentParser(description="Run all parts of the checks, and say at the end how each ended.")
    parser.add_argument("group", choices=sorted(GROUPS))
    group = parser.parse_args().group
    parts, left_out = dict(GROUPS[group]), dict[str, str]()
    if group == "test":
        reason = no_image()
        parts |= {} if reason else IMAGE
        left_out |= {"image": reason} if reason else {}
    outcomes = run_all(parts)
    print(summary(outcomes, left_out), flush=True)
    return int(any(outcome.code for outcome in outcomes))


def no_image() -> str:
    """Why the part with containers cannot run on this machine; empty where it can."""
    if shutil.which("docker") is None:
        return "no container engine is installed"
    label = f'{{{{index .Config.Labels "{LAYERS_LABEL}"}}}}'
    try:
        if _docker("version").returncode:
            return "no container engine answers"
        found = _docker("image", "inspect", "--format", label, IMAGE_TAG)
    except subprocess.TimeoutExpired:
        return f"the container engine does not answer within {ENGINE_SECONDS} s"
    if found.returncode:
        return "`make image-test` has not built the image on this machine"
    if found.stdout.strip() != sum_of_layers():
        return "the image has other dependencies; `make image-test` builds it again"
    return ""


def sum_of_layers() -> str:
    """A sum of the files from which the layers below the project are made."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in LAYERS)).hexdigest()


def _docker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=ENGINE_SECONDS)


def run_all(parts: Mapping[str, str]) -> list[Outcome]:
    """Run the commands one after the other in the project's folder. Programs of this environment come first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return [
        run(part, command, os.environ | {"PATH": path, "NO_MKDOCS_2_WARNING": "1"}) for part, command in parts.items()
    ]


def run(part: str, command: str, environment: Mapping[str, str]) -> Outcome:
    """Run one part."""
    print(f"\n-- {part}: {command}", flush=True)
    start = time.monotonic()
    try:
        code = subprocess.run(shlex.split(command), cwd=ROOT, env=environment, check=False).returncode
    except OSError as error:
        print(f"the command could not be started: {error}", file=sys.stderr)
        code = COULD_NOT_START
    return Outcome(part, code, time.monotonic() - start)


def summary(outcomes: Sequence[Outcome], left_out: Mapping[str, str] = MappingProxyType({})) -> str:
    """One line per part, the reason of each part that is left out, and a last line that names the parts that failed."""
    lines = [f"  {each.part:12} {verdict(each):18} {each.seconds:6.0f} s" for each in outcomes]
    lines += [f"  {part:12} left out: {reason}" for part, reason in left_out.items()]
    failed = [each.part for each in outcomes if each.code]
    last = f"failed: {', '.join(failed)}" if failed else "all parts passed"
    return "\n".join(["", "-- summary", *lines, f"-- {last}"])


def verdict(outcome: Outcome) -> str:
    """The outcome of a part in words."""
    return f"failed (exit {outcome.code})" if outcome.code else "passed"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
