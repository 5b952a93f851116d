"""Keeps the working directory, where data and downloads are, off the search path of modules.

This runs before everything else. It imports only modules that Python itself has loaded at its start.
"""

import os
import sys


def leave_out_working_directory() -> None:
    """Take the working directory off ``sys.path``, and off the PYTHONPATH of processes that this one starts.

    ``python -m`` puts it there, and so does an empty entry of PYTHONPATH. An entry that names the folder stays, because
    its owner wants it.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, entries))
    try:
        here = os.getcwd()  # noqa: PTH109
    except OSError:
        return
    if here not in {os.path.abspath(entry) for entry in entries if entry}:  # noqa: PTH100
        sys.path[:] = [entry for entry in sys.path if entry not in {"", ".", here}]
