"""``deca-node`` and ``python -m deca_node``: prepare the process, then run the command line."""

import sys

NODES = ("start", "join")
"""Verbs that run a node."""


def main() -> int:
    """Run the command line and return its exit code.

    Signals are handled before the modules of the command line are imported, which takes a moment.
    """
    from deca_node.process.signals import NOT_STARTED, SIGNALS, Stopped

    try:
        if next((each for each in sys.argv[1:] if not each.startswith("-")), "") in NODES:
            SIGNALS.install()
        from deca_node.cli.main import main as command_line

        exit_code = command_line()
        SIGNALS.end(exit_code)
        return exit_code
    except Stopped:
        print(NOT_STARTED, file=sys.stderr)  # noqa: T201
        return 0


if __name__ == "__main__":
    sys.exit(main())
