"""Sentences for words that ``deca-node`` does not know: the verb or the flag that the person probably wanted.

Some words come from other training programs (``train``, ``--lr``), so the nearest spelling would not find them. Two
tables translate those words. Every other word gets the nearest spelling.
"""

import difflib
from collections.abc import Iterable

import click

from deca_node.cli.verb_table import COMMANDS

VERBS = {
    **dict.fromkeys(("train", "run", "finetune", "fine-tune", "tune", "fit", "launch", "up"), "start"),
    **dict.fromkeys(("test", "check", "verify", "diagnose", "preflight"), "doctor"),
    **dict.fromkeys(("log", "tail", "journal"), "logs"),
    **dict.fromkeys(("peers", "nodes", "ls", "list"), "members"),
    **dict.fromkeys(("ps", "info", "show"), "status"),
    **dict.fromkeys(("kill", "end", "quit", "down"), "stop"),
    **dict.fromkeys(("save", "merge"), "export"),
    **dict.fromkeys(("evaluate", "score"), "eval"),
    **dict.fromkeys(("infer", "inference", "predict", "sample", "complete", "prompt", "try"), "generate"),
    **dict.fromkeys(("upload", "publish", "share", "push-to-hub"), "push"),
    **dict.fromkeys(("talk", "ask", "repl"), "chat"),
    **dict.fromkeys(("estimate", "cost", "dry-run"), "plan"),
    **dict.fromkeys(("setup", "new", "create", "begin"), "init"),
    **dict.fromkeys(("settings", "configure"), "config"),
    **dict.fromkeys(("certs", "certificate", "certificates", "tls"), "cert"),
}
"""The verb for a word of other programs."""

FLAGS = {
    "--lr": "--learning-rate",
    **dict.fromkeys(("--bs", "--batch", "--per-device-train-batch-size", "--train-batch-size"), "--batch-size"),
    **dict.fromkeys(
        ("--max-length", "--max-seq-length", "--seq-len", "--seq-length", "--block-size"), "--sequence-length"
    ),
    **dict.fromkeys(("--output", "--output-dir", "--out", "--logdir"), "--dir"),
    **dict.fromkeys(("--dataset", "--train-file", "--train-data", "--dataset-name"), "--data"),
    **dict.fromkeys(("--model-name", "--model-name-or-path", "--base-model", "--checkpoint"), "--model"),
    **dict.fromkeys(("--fp16", "--bf16", "--precision", "--torch-dtype"), "--dtype"),
    **dict.fromkeys(("--gpu", "--cuda"), "--device"),
    **dict.fromkeys(("--gpus", "--num-gpus", "--nproc-per-node", "--num-processes"), "--devices"),
    **dict.fromkeys(("--steps", "--max-steps"), "--inner-steps"),
    **dict.fromkeys(("--port", "--host", "--bind", "--address"), "--listen"),
    **dict.fromkeys(("--epoch", "--num-epochs", "--num-train-epochs"), "--epochs"),
    **dict.fromkeys(("--warmup", "--warmup-ratio"), "--lr-warmup"),
    **dict.fromkeys(("--warmup-steps", "--num-warmup-steps"), "--lr-warmup-steps"),
    **dict.fromkeys(("--wd", "--decay"), "--weight-decay"),
    **dict.fromkeys(("--clip-grad-norm", "--gradient-clip-val", "--grad-clip"), "--max-grad-norm"),
    **dict.fromkeys(("--neftune-noise-alpha", "--neftune"), "--neftune-alpha"),
    **dict.fromkeys(("--attention-dropout", "--attn-dropout", "--hidden-dropout", "--resid-dropout"), "--dropout"),
    **dict.fromkeys(("--attn-implementation", "--attn", "--flash-attn"), "--attention"),
    **dict.fromkeys(("--scheduler", "--lr-scheduler", "--lr-scheduler-type"), "--lr-schedule"),
    **dict.fromkeys(("--no-tls", "--plaintext"), "--insecure"),
}
"""The flag for a flag of other programs that means the same."""

DRY_RUN = "`deca-node doctor` checks whether this start would work, and `deca-node plan` says what the run costs."
LORA = "deca-node trains all parameters of the model, one block at a time, and no adapters: leave the flag out."
TRACKER = (
    "--track wandb, --track mlflow and --track tensorboard send curves there, and `deca-node report` makes a page with "
    "curves."
)
RESUME = "A start with the same --dir goes on where the node stopped, so no flag is needed."
SENTENCES = {
    **dict.fromkeys(("--dry-run", "--dryrun", "--check"), DRY_RUN),
    **dict.fromkeys(("--lora", "--qlora", "--peft", "--lora-r", "--lora-rank", "--lora-alpha"), LORA),
    **dict.fromkeys(("--wandb", "--wandb-project", "--mlflow", "--report-to"), TRACKER),
    **dict.fromkeys(("--resume", "--continue", "--resume-from-checkpoint"), RESUME),
}
"""What to do where no single flag means the same."""


class NoSuchVerb(click.UsageError):
    """The first word is no verb. The text is click's own."""

    def __init__(self, verb: str, ctx: click.Context) -> None:
        super().__init__(f"No such command {verb!r}.", ctx)
        self.verb = verb


def with_hint(error: click.ClickException) -> tuple[click.ClickException, str]:
    """The error to show, and a sentence that names the right word, empty where there is none.

    Click's own list of similar flags is left out where there is a sentence: it often names three wrong ones.
    """
    if isinstance(error, NoSuchVerb):
        return error, _verb_hint(error.verb)
    if isinstance(error, click.NoSuchOption) and (sentence := _flag_hint(error)):
        return click.NoSuchOption(error.option_name, error.message, ctx=error.ctx), sentence
    return error, ""


def _verb_hint(verb: str) -> str:
    word = VERBS.get(verb.lower(), "")
    right = word if word in COMMANDS else _near(verb.lower(), COMMANDS)
    return f"Did you mean `deca-node {right}`?" if right else "`deca-node --help` lists the verbs."


def _flag_hint(error: click.NoSuchOption) -> str:
    flag = error.option_name.lower().replace("_", "-")
    if flag in SENTENCES:
        return SENTENCES[flag]
    known = _flags(error.ctx)
    right = FLAGS.get(flag, "")
    if right and right not in known:
        return f"`{right}` of `deca-node start` means that; this verb has no such flag."
    right = right or _near(flag, known)
    return f"Did you mean `{right}`?" if right else ""


def _near(word: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def _flags(ctx: click.Context | None) -> set[str]:
    return {name for option in ctx.command.params for name in option.opts} if ctx else set()
