"""The table of verbs: where the code of each is, and the sentence that ``deca-node --help`` prints for it.

A verb's module is imported when the verb is looked up, and not before.
"""

import importlib

import click

from deca_node.cli.variables import name_variables

COMMANDS = {
    "start": ("deca_node.cli.verbs.start:start", "Run this machine's node of a training run."),
    "join": ("deca_node.cli.verbs.join:join", "Take over a run from a member, and take part in it."),
    "status": ("deca_node.cli.verbs.status:status", "Show where the node stands; --watch keeps looking."),
    "top": ("deca_node.cli.verbs.top:top", "Show the peers live, sorted as you like."),
    "members": ("deca_node.cli.verbs.requests:members", "Show who takes part in the run."),
    "events": ("deca_node.cli.verbs.requests:events", "Show the node's newest log lines."),
    "pause": ("deca_node.cli.verbs.requests:pause", "Stop training for a while, and stay."),
    "resume": ("deca_node.cli.verbs.requests:resume", "Go on after a pause."),
    "checkpoint": ("deca_node.cli.verbs.requests:checkpoint", "Write a checkpoint now."),
    "stop": ("deca_node.cli.verbs.requests:stop", "End the node in good order; a later start goes on."),
    "leave": ("deca_node.cli.verbs.requests:leave", "Leave the run for good."),
    "export": ("deca_node.cli.verbs.export:export", "Make an ordinary checkpoint of the model so far."),
    "eval": ("deca_node.cli.verbs.eval:evaluation", "Measure a model on a file: loss, perplexity, accuracy."),
    "report": ("deca_node.cli.verbs.report:report", "Write a report with the curves of a run."),
    "demo": ("deca_node.cli.verbs.demo:demo", "Watch several nodes train together on this machine."),
    "doctor": ("deca_node.cli.verbs.doctor:doctor", "Check before a start that it would work."),
    "plan": ("deca_node.cli.verbs.plan:plan", "Show what a run will cost before it starts."),
    "cert": ("deca_node.cli.verbs.cert:cert", "Make, exchange and check certificates."),
    "config": ("deca_node.cli.verbs.config:config", "Show where every setting comes from, or print a template."),
    "debug": ("deca_node.cli.verbs.debug:debug", "Gather what an error report needs, without secrets."),
    "completion": ("deca_node.cli.verbs.completion:completion", "Let the shell complete verbs, flags and files."),
    "version": ("deca_node.cli.verbs.version:version", "Print the versions that a bug report needs."),
}


def look_up(verb: str) -> click.Command | None:
    """Import a verb; None for a name that is not in the table."""
    if verb not in COMMANDS:
        return None
    module, _, attribute = COMMANDS[verb][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return name_variables(command, verb)
