"""What ``deca-node generate`` and ``deca-node chat`` share: the models that are asked, their flags, and safe output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from deca_node.api.loading import Held, checkpoint, model_of, start_model_of
from deca_node.cli.client import dir_option, find_directory
from deca_node.cli.invocation import Decorated
from deca_node.cli.views.progress import note, work
from deca_node.cli.views.text import printable
from deca_node.daemon.settings.node_settings import NodeSettings

if TYPE_CHECKING:
    from deca_node.numerics.learning.writing import Choice

START, TUNED, BOTH = "start", "tuned", "both"


@dataclass(frozen=True)
class Part:
    """One of the models that are asked: its key in JSON, its words, and how it is loaded."""

    key: str
    label: str
    load: Callable[[Any], Held]


def parts_of(flags: dict[str, Any]) -> Iterator[Part]:
    """The models that the flags ask for: a checkpoint, or a node's start model and tuned model."""
    if model := flags["model"]:
        yield Part("model", model, lambda device: checkpoint(model, device))
        return
    folder = find_directory(flags["directory"])
    if flags["only"] in (BOTH, START):
        start = flags["start"] or start_model_of(folder)
        yield Part(START, f"start model, {start}", lambda device: checkpoint(start, device))
    if flags["only"] in (BOTH, TUNED):
        yield Part(TUNED, f"tuned model of {folder}", lambda device: model_of(folder, flags["start"], device, note))


def loaded_of(part: Part, flags: dict[str, Any]) -> Held:
    """The model of one part on its device."""
    from deca_node.numerics.learning.evaluation import device_and_threads

    with work() as doing:
        doing.stage(f"loading {part.label}")
        return part.load(device_and_threads(flags["device"], flags["threads"]))


def choice_of(flags: dict[str, Any]) -> Choice:
    """How tokens are chosen."""
    from deca_node.numerics.learning.writing import Choice

    return Choice(**{name: flags[name] for name in ("tokens", "temperature", "top_p")}, seed=flags["draw"])


def screened(text: str) -> str:
    """The text with a replacement character for everything but line breaks and tabs that could move the cursor."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def writing_options(function: Decorated) -> Decorated:
    """Add the flags that `generate` and `chat` share."""
    options = [
        click.option("--model", help="A checkpoint's folder or hub id, instead of a node's two models."),
        dir_option,
        click.option(
            "--only",
            type=click.Choice([BOTH, TUNED, START]),
            default=BOTH,
            show_default=True,
            help="Which of a node's two models to ask.",
        ),
        click.option("--start-model", "start", help="The start model.  [default: as noted in the node's folder]"),
        click.option(
            "--tokens", default=100, show_default=True, type=click.IntRange(min=1), help="Largest number of new tokens."
        ),
        click.option(
            "--temperature",
            default=0.0,
            show_default=True,
            type=click.FloatRange(min=0.0, max=10.0),
            help="0: take the likeliest token each time. Above 0: draw tokens, and more freely the higher it is.",
        ),
        click.option(
            "--top-p",
            default=1.0,
            show_default=True,
            type=click.FloatRange(min=0.0, max=1.0, min_open=True),
            help="With --temperature: draw among the likeliest tokens whose shares add up to this.",
        ),
        click.option(
            "--seed", "draw", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of what is drawn."
        ),
        click.option("--device", default=NodeSettings.device, show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads on the CPU.  [default: one per core]"),
    ]
    for option in reversed(options):
        function = option(function)
    return function
