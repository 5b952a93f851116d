"""Real labelled text: rated sentences of four kinds, and WordNet's glosses with their categories.

``sentiment``: tweets, film reviews, product reviews and editorials that people rated from -4 to 4 (Hutto and Gilbert,
ICWSM 2014). A mean rating below -0.5 is negative, above 0.5 positive. ``topics``: what a noun means, in one of eight of
WordNet's lexical categories.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SENTIMENTS = ("negative", "neutral", "positive")
NEUTRAL_MAX = 0.5
RATED = {
    "tweets": "tweets",
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
"""Each domain's file."""

TOPICS = {
    "act": 4,
    "animal": 5,
    "artifact": 6,
    "communication": 10,
    "food": 13,
    "location": 15,
    "person": 18,
    "plant": 20,
}
"""Eight categories of nouns, by the numbers of WordNet's lexicographer files (lexnames(5WN))."""


class Text(NamedTuple):
    """A sentence, the number of its label, and the domain that it comes from."""

    text: str
    label: int
    domain: str


def sentiment(folder: Path) -> Iterator[Text]:
    """All rated sentences."""
    for domain, file in RATED.items():
        for line in (folder / f"{file}_GroundTruth.txt").read_text(encoding="utf-8").splitlines():
            _, rating, text = line.split("\t", 2)
            yield Text(text.strip(), sentiment_of(float(rating)), domain)


def sentiment_of(rating: float) -> int:
    """The number of the sentiment of a mean rating."""
    return 1 + (rating > NEUTRAL_MAX) - (rating < -NEUTRAL_MAX)


def topics(folder: Path) -> Iterator[Text]:
    """The glosses of nouns, without their examples."""
    numbers = {number: label for label, number in enumerate(TOPICS.values())}
    for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        label = numbers.get(int(line.split(" ", 2)[1]))
        if label is not None:
            yield Text(gloss(line), label, "glosses")


def gloss(line: str) -> str:
    """The definition in a line of WordNet's data, without quoted examples and without remarks in front."""
    definition = line.split(" | ", 1)[1].split('; "', 1)[0]
    return re.sub(r"^\([^)]*\)\s*", "", definition).strip()
