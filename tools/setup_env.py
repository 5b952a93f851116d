"""Prepares ``.venv``: a virtual environment with the pinned packages and this project, editable.

Every make target runs it with the system's Python. ``make demo`` and ``make testbed`` need no more than the program
itself (``--for running``); all other targets need the tools for development, too. A stamp in ``.venv`` records what it
was made from and for, so that a second call ends at once. A change of pyproject.toml, constraints.txt, a C file or this
file installs again.

torch is installed first and alone. On Linux a plain ``pip install torch`` takes the CUDA build with several GB of
libraries, so this script requests the CPU build by name. If pip finds none, it says how large torch's default build is
and how to choose another, and then installs the default build. Only with ``--torch cpu`` it stops there.
"""

import argparse
import hashlib
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "set-up-stamp"
CONSTRAINTS = ROOT / "constraints.txt"
COMPILED = tuple(sorted((ROOT / "deca_node").rglob("*.[ch]")))
PYTHON_MIN = (3, 11)
EXTRAS = {"running": "", "development": "[dev]"}
"""The extras of this project that are installed for each purpose."""

NO_CPU_BUILD = """pip found no torch {version}+cpu, which is the CPU build of torch."""

HOW_TO_CHOOSE = """
  - For the CPU build, set PIP_EXTRA_INDEX_URL to the address of PyTorch's index of CPU builds, and run make again.
    The "Get Started" page of pytorch.org shows this address when you select Pip and CPU.
  - make TORCH=default takes torch's default build, and make TORCH=cpu takes the CPU build or stops."""

DEFAULT_INSTEAD = f"""{NO_CPU_BUILD} The default build is installed instead.
   On Linux it comes with CUDA libraries: several GB to download, and more on disk.
   To choose another build, press Ctrl-C:{HOW_TO_CHOOSE}"""

STOPPED = f"""{NO_CPU_BUILD} Set-up stops, because TORCH=cpu was given. Choose a build:{HOW_TO_CHOOSE}"""


def main() -> None:
    """Check, create, install, and write the stamp."""
    parser = argparse.ArgumentParser(description="Make .venv ready for deca-node.")
    parser.add_argument(
        "--torch",
        choices=("auto", "cpu", "default"),
        default="auto",
        help="build of torch; auto takes the CPU build if pip finds one, else torch's default build",
    )
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=tuple(EXTRAS),
        default="development",
        help="running: the program alone; development: its tools, too",
    )
    given = parser.parse_args()
    check_python()
    if VENV_PYTHON.exists() and is_ready(given.purpose):
        return
    create_venv()
    install_torch(given.torch)
    install("--editable", f"{ROOT}{EXTRAS[given.purpose]}")
    STAMP.write_text(stamp(given.purpose))


def is_ready(purpose: str) -> bool:
    """Whether the environment was made for this. One for development serves for running as well."""
    serving = {stamp(purpose), stamp("development")}
    return STAMP.exists() and STAMP.read_text() in serving


def stamp(purpose: str) -> str:
    """What the stamp says of an environment that is made now."""
    return f"{ROOT}\n{digest()}\n{purpose}\n"


def check_python() -> None:
    """Refuse a Python that is too old, before it fails with a less clear error."""
    if sys.version_info[:2] < PYTHON_MIN:
        found = ".".join(map(str, sys.version_info[:2]))
        needed = ".".join(map(str, PYTHON_MIN))
        sys.exit(
            f"deca-node needs Python {needed} or newer, and {sys.executable} is {found}. "
            f"Install a newer one and name it: make PYTHON=python{needed} ..."
        )


def digest() -> str:
    """SHA-256 of everything that determines what is installed."""
    files = (ROOT / "pyproject.toml", CONSTRAINTS, *COMPILED, Path(__file__))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def create_venv() -> None:
    """Create the environment, unless a working one that was made here exists."""
    if VENV_PYTHON.exists() and not made_elsewhere():
        return
    say(f"creating {VENV} with Python {platform.python_version()}")
    # --clear, because a copied or broken environment has paths that no longer exist.
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False).returncode:
        sys.exit("Python could not create a virtual environment; on Debian and Ubuntu: apt install python3-venv")


def made_elsewhere() -> bool:
    """Whether the environment came with a copied or renamed project folder."""
    return STAMP.exists() and STAMP.read_text().splitlines()[:1] != [str(ROOT)]


def has_cpu_builds() -> bool:
    """Whether this platform has builds of torch that are named +cpu."""
    return platform.system() == "Linux" and platform.machine() in {"x86_64", "aarch64"}


def install_torch(build: str) -> None:
    """Install the pinned torch in the build that ``--torch`` names. A torch of that version stays, in any build."""
    pinned, present = pinned_torch(), installed_torch()
    if present.split("+")[0] == pinned:
        if present.endswith("+cpu") and build == "default":
            say(f"keeping torch {present}; to change the build, remove .venv first (make clean)")
        return
    if build == "cpu" or (build == "auto" and has_cpu_builds()):
        if pip_torch(f"{pinned}+cpu"):
            return
        if build == "cpu":
            sys.exit(STOPPED.format(version=pinned))
        say(DEFAULT_INSTEAD.format(version=pinned))
    if not pip_torch(pinned):
        sys.exit(f"pip could not install torch {pinned}. Its output is above.")


def pip_torch(version: str) -> bool:
    """Install one version of torch. Returns whether pip could."""
    say(f"installing torch {version}")
    # Without its dependencies, which come with the project's, in the pinned versions.
    return pip("install", "--no-deps", f"torch=={version}") == 0


def pinned_torch() -> str:
    """The version of torch that constraints.txt names."""
    lines = CONSTRAINTS.read_text().splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))


def installed_torch() -> str:
    """The version of torch in the environment with its build suffix, or an empty text. torch itself is not imported."""
    code = "import importlib.metadata as m; print(*(d.version for d in m.distributions(name='torch')))"
    return subprocess.run([VENV_PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def install(*arguments: str) -> None:
    """Install with pip in the pinned versions, or stop."""
    say("installing deca-node and the packages that it needs")
    if pip("install", "--constraint", str(CONSTRAINTS), *arguments):
        sys.exit("pip could not install the packages that deca-node needs. Its output is above.")


def pip(*arguments: str) -> int:
    """Run the environment's pip, and return its exit code."""
    command = [str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    return subprocess.run(command, check=False).returncode


def say(sentence: str) -> None:
    """Print a line for the user."""
    print(f"-- {sentence}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nset-up was interrupted; the next make continues from here")
