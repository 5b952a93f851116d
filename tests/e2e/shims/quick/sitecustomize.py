"""A node whose trainer needs no torch: tests/daemon/quick_trainer.py, at the pace that QUICK_TRAINER_SECONDS says.

Python imports this module at its start where its folder is on PYTHONPATH.
"""

import sys
from pathlib import Path

if "deca_node" in sys.orig_argv:
    from deca_node.daemon.trainer import link

    link.BOOT = str(Path(__file__).resolve().parents[3] / "daemon" / "quick_trainer.py")
