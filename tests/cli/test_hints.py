"""Wrong words: after click's own error comes one sentence with the right word, and the exit code stays 2."""

from collections.abc import Callable
from typing import Any

import pytest

from deca_node.cli.hints import FLAGS, SENTENCES, VERBS
from deca_node.cli.main import cli
from deca_node.cli.verb_table import COMMANDS

Deca = Callable[..., Any]


def said(deca: Deca, *arguments: str) -> tuple[str, str]:
    """Click's error, and the sentence after it."""
    outcome = deca(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    error, _, sentence = outcome.err.partition("Error: ")[2].partition("\n")
    return error, sentence.removesuffix("\n")


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        ("strat", "start"),
        ("train", "start"),
        ("run", "start"),
        ("finetune", "start"),
        ("Train", "start"),
        ("test", "doctor"),
        ("stauts", "status"),
        ("chekpoint", "checkpoint"),
        ("peers", "members"),
    ],
)
def test_a_wrong_verb_gets_the_right_one(deca: Deca, word: str, verb: str) -> None:
    assert said(deca, word, "--model", "x") == (f"No such command {word!r}.", f"Did you mean `deca-node {verb}`?")


def test_a_word_that_is_like_no_verb_gets_the_list(deca: Deca) -> None:
    assert said(deca, "xyzzy")[1] == "`deca-node --help` lists the verbs."


@pytest.mark.parametrize(
    ("flag", "right"),
    [
        ("--lr", "--learning-rate"),
        ("--bs", "--batch-size"),
        ("--ronds", "--rounds"),
        ("--learning_rate", "--learning-rate"),
        ("--model_name_or_path", "--model"),
        ("--output-dir", "--dir"),
        ("--insecur", "--insecure"),
        ("--num-train-epochs", "--epochs"),
        ("--warmup-steps", "--lr-warmup-steps"),
        ("--attn-implementation", "--attention"),
    ],
)
def test_a_wrong_flag_gets_the_right_one(deca: Deca, flag: str, right: str) -> None:
    for arguments in ([flag, "3"], [f"{flag}=3"]):
        assert said(deca, "start", *arguments) == (f"No such option {flag!r}.", f"Did you mean `{right}`?")


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("--dry-run", "`deca-node doctor` checks whether this start would work"),
        ("--lora", "trains all parameters"),
        ("--wandb", "`deca-node report`"),
    ],
)
def test_a_flag_without_a_counterpart_gets_advice(deca: Deca, flag: str, part: str) -> None:
    error, sentence = said(deca, "start", flag, "3")
    assert error == f"No such option {flag!r}."
    assert part in sentence


def test_a_flag_of_another_verb_is_named_as_such(deca: Deca) -> None:
    assert said(deca, "status", "--lr", "3")[1].startswith("`--learning-rate` of `deca-node start`")


def test_a_flag_that_is_like_none_is_left_to_click(deca: Deca) -> None:
    assert said(deca, "start", "--xyzzyq") == ("No such option '--xyzzyq'.", "")


def test_the_tables_name_words_that_exist() -> None:
    assert set(VERBS.values()) <= COMMANDS.keys()
    assert VERBS.keys().isdisjoint(COMMANDS)
    start = cli.get_command(None, "start")  # type: ignore[arg-type]
    assert start is not None
    flags = {name for option in start.params for name in option.opts}
    assert set(FLAGS.values()) <= flags
    assert flags.isdisjoint({*FLAGS, *SENTENCES})
