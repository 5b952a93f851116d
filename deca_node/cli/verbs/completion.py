"""``deca-node completion``: the script that makes a shell complete verbs, flags and files. It is click's own."""

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

The script asks deca-node itself at every press of TAB, so it need not be made anew after an upgrade. bash must be of
version 4.4 or newer.
"""
)
@click.argument("shell", type=click.Choice(list(HOW)))
@debug_option
def completion(shell: str) -> None:
    """Print what makes SHELL complete deca-node's verbs, flags and files."""
    found = get_completion_class(shell)
    assert found is not None, "click knows the three shells"
    made = found(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE)
    # Not source(), which runs bash to learn its version and has something to say where there is none.
    click.echo(made.source_template % made.source_vars())
    if sys.stdout.isatty():
        click.echo(f"# To use it: {HOW[shell]}", err=True)
