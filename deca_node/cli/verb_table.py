"""The table of verbs: the place of each verb's code, and its sentence in ``deca-node --help``.

A verb's module is imported when the verb is looked up.
"""

import importlib

import click

from deca_node.cli.variables import name_variables

COMMANDS = {
    "init": ("deca_node.cli.verbs.init:init", "Write run.toml, node.toml and peers.txt."),
    "start": ("deca_node.cli.verbs.start:start", "Run this machine's node of a training run."),
    "lend": ("deca_node.cli.verbs.lend:lend", "Lend this server's devices to the node of the same party."),
    "join": ("deca_node.cli.verbs.join:join", "Join a run from the address of any member."),
    "status": ("deca_node.cli.verbs.status:status", "Show where the node stands; --watch repeats it."),
    "top": ("deca_node.cli.verbs.top:top", "Show the peers live, in the order you choose."),
    "members": ("deca_node.cli.verbs.members:members", "Show who takes part in the run."),
    "events": ("deca_node.cli.verbs.events:events", "Show the node's newest log lines."),
    "logs": ("deca_node.cli.verbs.logs:logs", "Show the log, also of a node that has ended."),
    "pause": ("deca_node.cli.verbs.requests:pause", "Stop training until resume; stay a member."),
    "resume": ("deca_node.cli.verbs.requests:resume", "Resume training after a pause."),
    "checkpoint": ("deca_node.cli.verbs.requests:checkpoint", "Write a checkpoint now."),
    "stop": ("deca_node.cli.verbs.requests:stop", "Stop the node; a later start continues."),
    "leave": ("deca_node.cli.verbs.requests:leave", "Leave the run for good."),
    "export": ("deca_node.cli.verbs.export:export", "Write the model so far as a Hugging Face checkpoint."),
    "push": ("deca_node.cli.verbs.push:push", "Send the tuned model to the Hugging Face hub, with a model card."),
    "eval": ("deca_node.cli.verbs.eval:evaluation", "Measure a model on a file: loss, perplexity, accuracy."),
    "generate": ("deca_node.cli.verbs.generate:generate", "Show what the tuned model writes after a prompt."),
    "chat": ("deca_node.cli.verbs.chat:chat", "Talk with the tuned model, beside the start model."),
    "report": ("deca_node.cli.verbs.report:report", "Write an HTML report of a run."),
    "demo": ("deca_node.cli.verbs.demo:demo", "Watch several nodes train together on this machine."),
    "data": ("deca_node.cli.verbs.data:data", "Show what would be learnt of a file, token by token."),
    "doctor": ("deca_node.cli.verbs.doctor:doctor", "Check before a start whether it would work."),
    "plan": ("deca_node.cli.verbs.plan:plan", "Show what a run will cost before it starts."),
    "cert": ("deca_node.cli.verbs.cert:cert", "Make, exchange and check certificates."),
    "config": ("deca_node.cli.verbs.config:config", "Show where each setting comes from, or print a template."),
    "debug": ("deca_node.cli.verbs.debug:debug", "Collect what an error report needs, without secrets."),
    "completion": ("deca_node.cli.verbs.completion:completion", "Print the script for completion in the shell."),
    "version": ("deca_node.cli.verbs.version:version", "Print the installed versions."),
}


def look_up(verb: str) -> click.Command | None:
    """Import a verb's command. None where the name is not in the table."""
    if verb not in COMMANDS:
        return None
    module, _, attribute = COMMANDS[verb][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return name_variables(command, verb)
