"""A task by its name, with the model that it starts from."""

from bench.pretrained import packages, texts
from bench.pretrained.start import Start, start_model, tokenizer_of
from bench.pretrained.tasks import Sizes, make_task

SHORT_GLOSSES = Sizes(train=170, validation=12, test=30, head=20)
"""Eight strata instead of twelve."""


def load(name: str) -> Start:
    """The task and its start model. Raises MissingError where a package cannot be had."""
    kind, skew = name.split("-")
    folder = packages.cache()
    model = packages.minilm(folder)
    if kind == "sentiment":
        found, labels, sizes = texts.sentiment(packages.vader(folder)), texts.SENTIMENTS, Sizes()
    else:
        found, labels, sizes = texts.topics(packages.wordnet(folder)), tuple(texts.TOPICS), SHORT_GLOSSES
    return start_model(model, make_task(kind, found, labels, tokenizer_of(model), skew, sizes))
