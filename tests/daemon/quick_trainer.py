"""A trainer without torch, for tests of the daemon's own process: it answers every command at once.

It takes the place of ``deca_node/daemon/trainer/boot.py``. It writes no file but the one that marks the run as saved.
QUICK_TRAINER_SECONDS in the environment is the time that it takes for a step.
"""

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

from deca_node.daemon.trainer import messages
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import FrameSizes
from deca_node.protocol.options import TrainerOptions

STEP_SECONDS = float(os.environ.get("QUICK_TRAINER_SECONDS", "0"))
READY = e.TrainerReady(
    ModelFacts("ab", ("embedding", "head"), (4, 4)),
    FrameSizes(keyframe_bytes=(8, 8), update_bytes=(8, 8), signal_bytes=(0, 0), v_bytes=(0, 0)),
)


def main() -> None:
    stream = socket.socket(fileno=int(sys.argv[1])).makefile("rwb", buffering=0)
    for line in iter(stream.readline, b""):
        body = messages.decode(line).body
        if isinstance(body, TrainerOptions):
            directory = Path(body.directory)
            stream.write(messages.encode(READY))
        elif not isinstance(body, messages.ArenaShape):
            stream.write(messages.encode(answer(body, directory)))


def answer(command: c.TrainerCommand, directory: Path) -> e.TrainerEvent:
    match command:
        case c.Activate():
            return e.Activated(command.activation.index)
        case c.Connect():
            return e.Connected(command.activation)
        case c.HalfStep():
            time.sleep(STEP_SECONDS)
            return e.HalfStepped(command.step, command.update, {"loss": 1.0})
        case c.Mix():
            return e.Mixed(command.step)
        case c.Freeze():
            return e.Frozen(command.activation)
        case c.Evaluate():
            return e.Evaluated(command.when, 1.0, 10)
        case c.Checkpoint():
            return e.Checkpointed(command.position, "checkpoints")
        case c.Save():
            (directory / command.name).mkdir(exist_ok=True)
            return e.Saved(str(directory / command.name))
        case c.Adopt():
            return e.Adopted(command.position)


if __name__ == "__main__":
    # The daemon is gone.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main()
