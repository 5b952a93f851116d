"""Installs what tools/build_release.py has built into empty environments, and runs `deca-node demo` in each.

    python tools/check_release.py                        Python 3.11, 3.12 and 3.13, as python3.11 and so on
    python tools/check_release.py python3.12 /opt/python3.13/bin/python

For each Python: the wheel, with its compiled codecs; then the source distribution where there is no compiler, with
codecs as torch code. Both must work. Pythons that are missing are named, and make the check fail.

torch comes in its CPU build where pip finds one for that Python, and otherwise in its default build, which is large.
With --environments FOLDER the environments stay there, so that a second check downloads nothing large.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST, CONSTRAINTS = ROOT / "dist", ROOT / "constraints.txt"
PYTHONS = ("python3.11", "python3.12", "python3.13")
NO_COMPILER = {"CC": "/nonexistent/cc", "CXX": "/nonexistent/cc"}
COMPILED = "import sys; from deca_node.storage.compiled import load_built; sys.exit(load_built() is None)"


@dataclass(frozen=True)
class Environment:
    """An empty virtual environment in ``folder``."""

    folder: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    def pip(self, *arguments: str, **variables: str) -> bool:
        """Install. Returns whether pip could."""
        command = [self.python, "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), *arguments]
        return subprocess.run(command, env=os.environ | variables, check=False).returncode == 0

    def demo(self, size: list[str]) -> bool:
        """Run the demo in a folder of this environment. A second demo takes the starting model of the first."""
        command = [str(self.folder / "bin" / "deca-node"), "demo", *size]
        return subprocess.run([*command, "--dir", "demo"], cwd=self.folder, check=False).returncode == 0

    def compiled(self) -> bool:
        """Whether the installed codecs are compiled."""
        return subprocess.run([self.python, "-c", COMPILED], cwd=self.folder, check=False).returncode == 0


def main() -> None:
    """Check every Python, and say at the end how each did."""
    parser = argparse.ArgumentParser(description="Check a release in empty environments.")
    parser.add_argument("pythons", nargs="*", default=PYTHONS, help="interpreters: names or paths")
    parser.add_argument("--nodes", type=int, default=2, help="nodes in each demo")
    parser.add_argument("--environments", type=Path, help="keep the environments in this folder, and use those in it")
    parser.add_argument("--rounds", type=int, default=1, help="rounds in each demo")
    given = parser.parse_args()
    size = ["--nodes", str(given.nodes), "--rounds", str(given.rounds)]
    wheel, sdist = newest("*.whl"), newest("*.tar.gz")
    outcomes = {name: check(name, wheel, sdist, size, given.environments) for name in given.pythons}
    print("\n" + "\n".join(f"{name:<30} {outcome}" for name, outcome in outcomes.items()))
    sys.exit(any(outcome != "ok" for outcome in outcomes.values()))


def newest(pattern: str) -> Path:
    """The built file of this kind."""
    found = sorted(DIST.glob(f"deca_node-{pattern}"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else sys.exit(f"there is no {pattern} in {DIST}; run make release first")


def check(name: str, wheel: Path, sdist: Path, size: list[str], kept: Path | None) -> str:
    """How one Python did: "ok", or the first thing that went wrong."""
    python = shutil.which(name)
    if python is None:
        return "missing: this machine has no such Python"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="deca-release-")) if kept is None else None
        place = Environment(Path(folder) if folder else (kept or Path()) / Path(name).name)
        made = (place.folder / "bin" / "python").exists()
        if not made and subprocess.run([python, "-m", "venv", str(place.folder)], check=False).returncode:
            return "no virtual environment could be created"
        if not made:
            install_torch(place)
        return try_out(place, wheel, sdist, size)


def try_out(place: Environment, wheel: Path, sdist: Path, size: list[str]) -> str:
    """The wheel, then the source distribution where there is no compiler."""
    if not (place.pip(str(wheel)) and place.pip("--force-reinstall", "--no-deps", str(wheel))):
        return f"{wheel.name} could not be installed"
    if not place.compiled():
        return "the wheel's compiled codecs are not used"
    if not place.demo(size):
        return "deca-node demo failed with compiled codecs"
    if not place.pip("--force-reinstall", "--no-deps", str(sdist), **NO_COMPILER):
        return f"{sdist.name} could not be installed without a compiler"
    if place.compiled():
        return "the source distribution has compiled codecs, though there was no compiler"
    return "ok" if place.demo(size) else "deca-node demo failed without compiled codecs"


def install_torch(place: Environment) -> None:
    """The CPU build of torch if pip finds one. Otherwise the wheel brings torch's default build, which is large."""
    pinned = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    command = [place.python, "-m", "pip", "install", "--quiet", "--no-deps", f"{pinned}+cpu"]
    subprocess.run(command, check=False, capture_output=True)


if __name__ == "__main__":
    main()
