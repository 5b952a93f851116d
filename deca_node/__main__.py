"""``deca-node`` and ``python -m deca_node``: prepare the process, then run the command line."""

import sys

NODES = ("start", "join")
"""Verbs that run a node."""
NO_FOLDER = "error: the working directory of this process does not exist any more; change to another folder"
EXIT_SETTINGS = 3


def main() -> int:
    """Run the command line and return its exit code.

    The imports are in the order of the preparations: the search path is right before anything is searched for, and the
    signals are handled before the modules of the command line, which take a moment.
    """
    from deca_node.process.search_path import leave_out_working_directory

    leave_out_working_directory()
    from deca_node.process import inherited
    from deca_node.process.memory import collect_seldom
    from deca_node.process.signals import NOT_STARTED, SIGNALS, Stopped

    collect_seldom()
    inherited.set_right()
    try:
        if next((each for each in sys.argv[1:] if not each.startswith("-")), "") in NODES:
            SIGNALS.install()
        if not inherited.has_working_directory():
            print(NO_FOLDER, file=sys.stderr)  # noqa: T201
            return EXIT_SETTINGS
        from deca_node.cli.main import main as command_line

        exit_code = command_line()
        SIGNALS.end(exit_code)
        return exit_code
    except Stopped:
        print(NOT_STARTED, file=sys.stderr)  # noqa: T201
        return 0


if __name__ == "__main__":
    sys.exit(main())
