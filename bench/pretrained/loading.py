"""A task by its name, with the model that it starts from."""

from dataclasses import replace
from pathlib import Path

from bench.packing import model as smollm2
from bench.pretrained import packages, prompted, texts
from bench.pretrained.start import Start, prompted_start, start_model, tokenizer_of
from bench.pretrained.tasks import Sizes, make_task

SHORT_GLOSSES = Sizes(train=170, validation=12, test=30, head=20)
"""Eight strata instead of twelve."""

PROMPTED = {
    "sentiment": Sizes(train=120, validation=5, test=10, head=0),
    "topics": Sizes(train=170, validation=8, test=15, head=0),
}
"""Less text to judge on, since the model is nine times as large."""

NODES = {"smollm2": 4}
"""Tasks have eight nodes, except those of a large model."""


def load(name: str) -> Start:
    """The task and its start model, by the name KIND-SKEW or smollm2-KIND-SKEW. Raises MissingError where a package
    cannot be had."""
    *model, kind, skew = name.split("-")
    folder = packages.cache()
    if kind == "sentiment":
        found, labels, sizes = texts.sentiment(packages.vader(folder)), texts.SENTIMENTS, Sizes()
    else:
        found, labels, sizes = texts.topics(packages.wordnet(folder)), tuple(texts.TOPICS), SHORT_GLOSSES
    if not model:
        minilm = packages.minilm(folder)
        return start_model(minilm, make_task(kind, found, labels, tokenizer_of(minilm), skew, sizes))
    place = smollm2.prepare(smollm2.cache())
    return prompted_of(place, kind, list(found), labels, skew)


def prompted_of(place: Path, kind: str, found: list[texts.Text], labels: tuple[str, ...], skew: str) -> Start:
    """The task with a question behind each text, for the language model of a folder."""
    tokenizer = tokenizer_of(place)
    sizes, asked = PROMPTED[kind], len(tokenizer("\n" + prompted.QUESTIONS[kind])["input_ids"])
    sizes = replace(sizes, tokens_min=sizes.tokens_min + asked, tokens_max=sizes.tokens_max + asked)
    task = make_task(kind, prompted.prompts(kind, found), labels, tokenizer, skew, sizes)
    return prompted_start(place, replace(task, name=f"smollm2-{task.name}"), prompted.answers(tokenizer, labels))


def nodes_of(name: str) -> int:
    """How many nodes a task has."""
    return NODES.get(name.split("-", maxsplit=1)[0], 8)
