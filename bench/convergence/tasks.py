"""The tasks: sequences of each domain, and their distribution over the nodes.

``language``: the next token, in eight domains. ``sources``: a piece ends with a question and, as its last token, a
letter for the domain that it comes from. Only the letter is in the loss, and accuracy and F1 are those of the most
likely letter. ``heads``: the same with a classifier's head instead of the question; the last number of a sequence is
the class. In all tasks the nodes' shares in each domain (or class) are drawn from Dirichlet(0.25), the paper's label
skew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from bench.convergence.corpora import LANGUAGE, SOURCES, SPLITS, digest, pieces
from deca_node.numerics.data.sequences import Sequences, permutation

QUESTION = "\n# "
LETTERS = "ABCDEFGH"
BYTES_PER_TOKEN_MAX = 4
"""More bytes than a token of the start model has in any domain. The amount of text to read follows from it."""

SEQUENCES_MIN = 8
"""The least number of sequences of a node. Shares that give a node fewer are drawn again."""


@dataclass(frozen=True, eq=False)
class Task:
    """``train`` by domain; ``validation`` and ``test`` over all domains in equal parts; ``labels``: the tokens of the
    letters, if the task is classification."""

    name: str
    domains: tuple[str, ...]
    train: tuple[Sequences, ...]
    validation: Sequences
    test: Sequences
    labels: tuple[int, ...]
    digest: str


@dataclass(frozen=True)
class Sizes:
    """Tokens per sequence, and sequences per domain in each split."""

    length: int = 32
    train: int = 600
    validation: int = 16
    test: int = 32


TASKS = {"language": LANGUAGE, "sources": SOURCES, "heads": SOURCES}


def load(name: str, tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> Task:
    """Read and cut the text of one task. The same text and tokenizer give the same sequences."""
    wanted = dict(zip(SPLITS, (sizes.train, sizes.validation, sizes.test), strict=True))
    domains = TASKS[name]
    nbytes = {split: BYTES_PER_TOKEN_MAX * sizes.length * count for split, count in wanted.items()}
    texts = {domain.name: pieces(domain, nbytes) for domain in domains}
    letters = tuple(single_token(tokenizer, letter) for letter in LETTERS)
    labels = {"language": (), "sources": letters, "heads": tuple(range(len(domains)))}[name]
    question = tokenizer.encode(QUESTION) if name == "sources" else []
    cut = {
        (domain.name, split): _sequences(texts[domain.name][split], tokenizer, sizes.length, wanted[split], tail)
        for domain, tail in zip(domains, [[*question, label] for label in labels] or [[]] * len(domains), strict=True)
        for split in SPLITS
    }
    return Task(
        name,
        tuple(domain.name for domain in domains),
        tuple(cut[domain.name, "train"] for domain in domains),
        *(Sequences.joined([cut[domain.name, split] for domain in domains]) for split in ("validation", "test")),
        labels,
        digest(piece for splits in texts.values() for split in SPLITS for piece in splits[split]),
    )


def dealt(task: Task, nodes: int, alpha: float, seed: int) -> list[Sequences]:
    """Each node's sequences: domain by domain, in shares drawn from Dirichlet(``alpha``), until all nodes have
    enough."""
    rng = np.random.default_rng([seed, nodes])
    for _ in range(1000):
        held: list[list[Sequences]] = [[] for _ in range(nodes)]
        for domain, sequences in zip(task.domains, task.train, strict=True):
            ends = np.round(np.cumsum(rng.dirichlet([alpha] * nodes)) * len(sequences)).astype(int)
            order = permutation(len(sequences), f"{seed}:{domain}")
            for mine, rows in zip(held, np.split(order, ends[:-1]), strict=True):
                mine.append(sequences.take(rows))
        if min(sum(map(len, mine)) for mine in held) >= SEQUENCES_MIN:
            return [Sequences.joined(mine) for mine in held]
    raise ValueError(f"{task.name} has too few sequences to deal {SEQUENCES_MIN} to each of {nodes} nodes")


def single_token(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """The single token of ``text``."""
    ids = tokenizer.encode(text)
    assert len(ids) == 1, f"{text!r} is {len(ids)} tokens"
    return int(ids[0])


def _sequences(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int, count: int, tail: Sequence[int]
) -> Sequences:
    """``count`` sequences of ``length`` tokens. With a tail, each is of one piece and ends with the tail, whose last
    token is in the loss. Without a tail, pieces follow one another, with an end of text between them."""
    room = length - len(tail)
    lines = [tokenizer.encode(text) for text in texts]
    if not tail:
        end = tokenizer.eos_token_id
        lines = [[token for line in lines for token in [*line, end]]]
    rows = [[*line[i : i + room], *tail] for line in lines for i in range(0, len(line) - room + 1, room)]
    if len(rows) < count:
        raise ValueError(f"there is text for {len(rows)} sequences where {count} are wanted")
    chosen = permutation(len(rows), f"{length}:{tail[-1] if tail else None}")[:count]
    ids = np.array([rows[i] for i in chosen], np.int32)
    trained = np.ones_like(ids, np.bool_)
    if tail:
        trained[:, :-1] = False
    return Sequences.of_rows(ids, trained)
