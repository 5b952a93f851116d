"""``deca-node completion``: click's script with which a shell completes verbs, flags and files."""

import sys

import click
from click.shell_completion import get_completion_class

from deca_node.cli.invocation import debug_option

PROGRAM, VARIABLE = "deca-node", "_DECA_NODE_COMPLETE"
HOW = {
    "bash": 'eval "$(deca-node completion bash)"          # in ~/.bashrc',
    "zsh": 'eval "$(deca-node completion zsh)"            # in ~/.zshrc, after compinit',
    "fish": "deca-node completion fish > ~/.config/fish/completions/deca-node.fish",
}


@click.command(
    epilog="""\b
Examples:
  eval "$(deca-node completion bash)"
  deca-node completion zsh > ~/.deca-node.zsh && echo '. ~/.deca-node.zsh' >> ~/.zshrc
  deca-node completion fish > ~/.config/fish/completions/deca-node.fish

The script asks deca-node at every press of TAB, so an upgrade needs no new script. bash must be 4.4 or newer.
"""
)
@click.argument("shell", type=click.Choice(list(HOW)))
@debug_option
def completion(shell: str) -> None:
    """Print the script with which SHELL completes the verbs, flags and files of deca-node."""
    found = get_completion_class(shell)
    assert found is not None, "click knows the three shells"
    made = found(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE)
    # Not source(): it runs bash to learn its version, and complains where there is no bash.
    click.echo(made.source_template % made.source_vars())
    if sys.stdout.isatty():
        click.echo(f"# To use it: {HOW[shell]}", err=True)
