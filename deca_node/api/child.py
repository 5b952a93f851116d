"""A node's process that ends with the program that started it.

The program holds the other end of this process's standard input. When the program ends in whatever way, even by
``kill -9`` or because a notebook restarts its kernel, that end closes, and the node stops in order: it finishes its
step and writes a checkpoint. Everything else is ``deca-node``, with the same words behind it.
"""

import os
import runpy
import signal
import threading

STANDARD_INPUT = 0


def main() -> None:
    """Run ``python -m deca_node`` with this process's arguments."""
    threading.Thread(target=stop_with_the_program, daemon=True).start()
    # By name, since nothing here may import the command line.
    runpy.run_module("deca_node", run_name="__main__", alter_sys=True)


def stop_with_the_program() -> None:
    """Wait until the other end of standard input closes, then stop this process as a person would."""
    while os.read(STANDARD_INPUT, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
