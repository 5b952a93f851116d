"""Run ``deca-node`` and send this process signals at certain moments: ``python at_moments.py MOMENTS ARGUMENTS...``.

MOMENTS is like ``Network.start=SIGHUP,TrainerLink._listen=SIGTERM``. A moment is the first call of a function, by its
qualified name, or ``module NAME``, the import of a module. The trainer is a process that waits until its socket closes.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

TRAINER = "import socket, sys\nsocket.socket(fileno=int(sys.argv[1])).makefile('rb').read()\n"


def main() -> int:
    moments = dict(moment.split("=") for moment in sys.argv.pop(1).split(","))
    boot = Path(tempfile.mkdtemp()) / "boot.py"
    boot.write_text(TRAINER)

    def watch(frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call":
            return
        name = frame.f_code.co_qualname
        if name == "<module>":
            name = f"module {frame.f_globals.get('__name__')}"
        if name == "Daemon.__init__":
            sys.modules["deca_node.daemon.trainer.rank"].BOOT = str(boot)  # type: ignore[attr-defined]
        if number := moments.pop(name, ""):
            sys.stderr.write(f"moment {name}\n")
            os.kill(os.getpid(), signal.Signals[number])

    from deca_node.__main__ import main as deca_node

    sys.setprofile(watch)
    code = deca_node()
    sys.setprofile(None)
    return code


if __name__ == "__main__":
    sys.exit(main())
