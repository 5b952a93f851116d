"""The command ``deca-node``: it finds the verb, and turns every error into a sentence and an exit code.

Only click is imported here. A verb's module is imported when the verb is called, so ``deca-node --help`` answers at
once, also on a machine where importing torch takes ten seconds.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from deca_node import __version__
from deca_node.cli.hints import NoSuchVerb, with_hint
from deca_node.cli.invocation import Invocation, debug_option
from deca_node.cli.verb_table import COMMANDS, look_up
from deca_node.protocol.errors import DecaError, SettingsError, StorageError

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors of the system about a disk that accepts no data."""


class LazyGroup(click.Group):
    """A group of commands that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the table, which is the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See :func:`look_up`."""
        return look_up(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb. Raises NoSuchVerb for a word that is none, and leaves flags to click."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise NoSuchVerb(args[0], ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs from the table, without importing any, and flags where a dash was typed."""
        verbs = [CompletionItem(name, help=says) for name, (_, says) in COMMANDS.items() if name.startswith(incomplete)]
        return verbs + (click.Command.shell_complete(self, ctx, incomplete) if incomplete.startswith("-") else [])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the table's own sentences."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  deca-node demo
  deca-node start --insecure --peers peers.txt --model ./Qwen2.5-0.5B --data notes.jsonl
  deca-node config --template run > run.toml
  deca-node start --help
""",
)
@debug_option
@click.version_option(__version__, prog_name="deca-node")
def cli() -> None:
    """Fine-tune one language model together with other parties, peer to peer. Your data stays on your machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``deca-node`` and return its exit code (docs/EXIT_CODES.md). Every error is caught here and printed as one
    sentence."""
    invocation = Invocation()
    try:
        return _run(arguments, invocation)
    except click.ClickException as error:
        shown, sentence = with_hint(error)
        shown.show()
        if sentence:
            click.echo(sentence, err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except DecaError as error:
        _show_traceback(invocation)
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except OSError as error:
        return _end_by_path(error, invocation)
    except Exception as error:  # noqa: BLE001  (only the shell is above this function)
        return _end_by_bug(error, invocation)


def _end_by_bug(error: Exception, invocation: Invocation) -> int:
    _show_traceback(invocation)
    hint = "" if invocation.debug else " (run again with --debug to see where)"
    click.echo(f"internal error: {type(error).__name__}: {error}{hint}", err=True)
    return EXIT_INTERNAL


def _end_by_path(error: OSError, invocation: Invocation) -> int:
    """End with a sentence where the system refuses a path. Any other error of the system is internal."""
    from deca_node.storage.folder import REFUSED

    if error.filename is None or error.errno not in (REFUSED | FULL):
        return _end_by_bug(error, invocation)
    _show_traceback(invocation)
    path = os.fsdecode(error.filename)
    if error.errno in FULL:
        click.echo(
            f"error: cannot write {path}: {error.strerror}; make room, or name a folder on another disk", err=True
        )
        return StorageError.exit_code
    user = f"this process runs as user {os.geteuid()}"
    click.echo(
        f"error: cannot use {path}: {error.strerror}; {user}: give that user the right to the path and to every folder "
        "above it (chown), or name another path",
        err=True,
    )
    return SettingsError.exit_code


def _run(arguments: Sequence[str] | None, invocation: Invocation) -> int:
    args = list(sys.argv[1:] if arguments is None else arguments)
    result: Any = cli.main(args=args, prog_name="deca-node", standalone_mode=False, obj=invocation)
    return result if isinstance(result, int) else 0


def _show_traceback(invocation: Invocation) -> None:
    if invocation.debug:
        traceback.print_exc()
