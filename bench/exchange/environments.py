"""Virtual environments for the libraries in the comparison, made at their first use.

Their requirements conflict with each other and with this project's. A library that cannot be installed is one line in
the results and does not end the measurement.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

STAMP = "installed.txt"
INSTALL_SECONDS_MAX = 1800


class CouldNotInstallError(Exception):
    """The reason why a library is not part of a comparison."""


@dataclass(frozen=True)
class Environment:
    """A name, and the requirements for pip, group by group in this order."""

    name: str
    groups: tuple[tuple[str, ...], ...]


# torch comes before the packages that depend on it, so that pip keeps the build that is chosen here.
TORCH = ("torch==2.13.0",)

ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        # hivemind converts arrays with one element to integers, which numpy 2.4 refuses.
        Environment("hivemind", (TORCH, ("hivemind>=1.1,<1.2", "numpy<2.4"))),
        # p2pfl allows newer versions of these two than its other requirements do.
        Environment("p2pfl", (("p2pfl[dp]>=0.4,<0.5", "pyarrow<20", "huggingface_hub<1"),)),
        # A range, so that pip can take the newest version whose requirements it can meet.
        Environment("flwr", (("flwr>=1.40,<1.43", "numpy"),)),
    )
}


def python_of(name: str, cache: Path) -> Path:
    """The interpreter of an environment below ``cache``, which is made if necessary. Raises CouldNotInstallError."""
    if not name:
        return Path(sys.executable)
    environment = ENVIRONMENTS[name]
    folder = cache.resolve() / name
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    stamp = folder / STAMP
    wanted = hashlib.sha256(repr((environment.groups, sys.version_info[:2])).encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    cache.mkdir(parents=True, exist_ok=True)
    # As in the caches of other tools: nothing below is ever committed.
    (cache / ".gitignore").write_text("*\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    for group in environment.groups:
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *group])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise CouldNotInstallError(f"it took longer than {INSTALL_SECONDS_MAX} seconds") from None
    if done.returncode != 0:
        raise CouldNotInstallError(_reason(done.stderr))


def _reason(complaint: str) -> str:
    """The last error that pip names, without addresses and long lists, for the results."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")] or lines or ["no reason given"]
    return re.sub(r"\S+://\S+", "(address)", errors[-1])[:200]
