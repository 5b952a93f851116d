"""The oldest version with which this one must train, taken from the history.

docs/OPERATIONS.md names it to users. A change of the wire, of a setting's meaning or of the checkpoints moves both.
Two tests run it beside this version: ``tests/e2e/test_upgrade.py`` and ``make image-test``.
"""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EARLIER = "1d1526c30acb103150121a1b0a9783c7ce7471a8"


def unpack(folder: Path) -> bool:
    """Put the package of the earlier version into a folder. False where the history does not reach back to it."""
    git = shutil.which("git")
    if git is None:
        return False
    found = subprocess.run([git, "-C", ROOT, "archive", EARLIER, "deca_node"], check=False, capture_output=True)
    if found.returncode:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", folder], input=found.stdout, check=True)
    return True
