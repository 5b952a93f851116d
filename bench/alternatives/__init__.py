"""Packages that this engine is compared with. They are no dependencies: each measurement puts them into a folder of
its own, pinned and by hash, without what they need, which is here already."""

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = tuple(Path(__file__).with_name(name) for name in ("badam.txt", "peft.txt"))


def install(folder: Path) -> list[str]:
    """Put all of them into ``folder``; returns what was installed, as in ``badam==1.4``. Ends the process where pip
    cannot."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--target", str(folder)]
    command += [part for path in REQUIREMENTS for part in ("--requirement", str(path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        sys.exit(f"badam and peft could not be installed ({reason}); --ours-only leaves them out")
    return [line.split()[0] for path in REQUIREMENTS for line in path.read_text(encoding="utf-8").splitlines()]
