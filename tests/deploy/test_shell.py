"""Every shell script here, judged by shellcheck."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, ROOT

SCRIPTS = sorted([*(ROOT / "docker").glob("*.sh"), *DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")])
SHELLCHECK = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT)))
def test_shellcheck_finds_no_fault(script: Path) -> None:
    done = subprocess.run([str(SHELLCHECK), str(script)], check=False, capture_output=True, text=True)
    assert done.stdout == ""
