"""The verbs that pass one request on to a running node, and print the sentence with which it answers."""

import json
from pathlib import Path

import click

from deca_node.api.client import NodeClient
from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.daemon.status.facts import Verb


def _request(verb: Verb, help_text: str, *examples: str) -> click.Command:
    """The command of one request."""

    @click.command(verb.value, help=help_text, epilog="\b\nExamples:\n" + "".join(f"  {line}\n" for line in examples))
    @dir_option
    @json_option
    @debug_option
    def command(directory: Path | None, as_json: bool) -> None:
        sentence = NodeClient(find_directory(directory)).ask(verb)
        click.echo(json.dumps({"sentence": sentence}) if as_json else sentence)

    return command


pause = _request(
    Verb.PAUSE,
    "Stop training after the current step, until `deca-node resume`. The node first writes a checkpoint. It stays a "
    "member, and the other nodes train on without it.",
    "deca-node pause",
    "deca-node pause --dir deca-data/north",
)
resume = _request(
    Verb.RESUME,
    "Resume training after a pause. The node takes over the blocks that other nodes trained in the meantime.",
    "deca-node resume",
)
checkpoint = _request(
    Verb.CHECKPOINT,
    "Write a checkpoint after the current step, in addition to the regular ones.",
    "deca-node checkpoint",
    "deca-node checkpoint && deca-node status --json | jq .checkpoint",
)
leave = _request(
    Verb.LEAVE,
    "Leave the run for good. The node ends, and the other nodes drop it from the membership and do not wait for it. "
    "To come back later, use `deca-node stop` instead.",
    "deca-node leave",
)
stop = _request(
    Verb.STOP,
    "Stop the node. It finishes the current step, writes a checkpoint and exits with 0. Started again in the same "
    "folder, it continues from that checkpoint.",
    "deca-node stop",
    "deca-node stop --dir deca-data/north",
)
