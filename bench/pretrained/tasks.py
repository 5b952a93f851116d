"""A task: records that are cut into splits, and how they are dealt to nodes.

Records of one label and one domain are a stratum. Every split has the same number of records of every stratum, as far
as there are enough, so that the test text covers all labels and domains alike. ``skew = label`` deals each label in
shares from Dirichlet(0.25), as in the paper. ``skew = domain`` gives each node the text of one domain.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from bench.pretrained.texts import Text
from deca_node.numerics.data.labelled import Examples
from deca_node.numerics.data.sequences import permutation

ALPHA = 0.25
RECORDS_MIN = 16
"""The least number of records of a node. Shares that give a node fewer are drawn again."""

SPLITS = ("test", "validation", "head", "train")


@dataclass(frozen=True)
class Sizes:
    """Records of each stratum, by split; and how many tokens a record has. Longer and shorter texts are left out, so
    that none is cut."""

    train: int = 120
    validation: int = 10
    test: int = 20
    head: int = 15
    tokens_min: int = 5
    tokens_max: int = 16


@dataclass(frozen=True, eq=False)
class Records:
    """Records of one split, and the number of each one's stratum, int64 [records]."""

    examples: Examples
    strata: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.strata)

    def take(self, rows: NDArray[np.int64]) -> "Records":
        """These records, in this order."""
        return Records(self.examples.take(rows), self.strata[rows])


@dataclass(frozen=True, eq=False)
class Task:
    """``strata`` are pairs of a label's number and a domain. ``head`` is text that no node holds."""

    name: str
    labels: tuple[str, ...]
    strata: tuple[tuple[int, str], ...]
    skew: str
    splits: dict[str, Records] = field(repr=False)
    digest: str

    def __getattr__(self, name: str) -> Records:
        if name in SPLITS:
            return self.splits[name]
        raise AttributeError(name)


def make_task(
    name: str,
    texts: Iterable[Text],
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    skew: str,
    sizes: Sizes | None = None,
) -> Task:
    """Tokenize and split. The same text and tokenizer give the same records."""
    sizes = sizes or Sizes()
    unique = list({text.text: text for text in texts}.values())
    encoded = tokenizer([text.text for text in unique])["input_ids"]
    fitting = [k for k, ids in enumerate(encoded) if sizes.tokens_min <= len(ids) <= sizes.tokens_max]
    strata = tuple(sorted({(unique[k].label, unique[k].domain) for k in fitting}))
    chosen: dict[str, list[tuple[int, int]]] = {split: [] for split in SPLITS}
    for number, stratum in enumerate(strata):
        mine = [k for k in fitting if (unique[k].label, unique[k].domain) == stratum]
        order = [mine[i] for i in permutation(len(mine), f"{name}:{stratum}")]
        for split in SPLITS:
            count = getattr(sizes, split)
            chosen[split] += [(k, number) for k in order[:count]]
            order = order[count:]
    pad = tokenizer.pad_token_id or 0
    splits = {split: _records(rows, encoded, strata, pad) for split, rows in chosen.items()}
    sha = hashlib.sha256("\0".join(unique[k].text for split in SPLITS for k, _ in chosen[split]).encode())
    return Task(f"{name}-{skew}", tuple(labels), strata, skew, splits, sha.hexdigest()[:16])


def _records(
    rows: Sequence[tuple[int, int]], encoded: Sequence[Sequence[int]], strata: Sequence[tuple[int, str]], pad: int
) -> Records:
    lengths = [len(encoded[k]) for k, _ in rows]
    ids = np.array([token for k, _ in rows for token in encoded[k]], np.int32)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    labels = np.array([strata[s][0] for _, s in rows], np.int64)
    examples = Examples(ids, np.zeros(len(ids), np.int8), starts, labels, pad)
    return Records(examples, np.array([s for _, s in rows], np.int64))


def dealt(task: Task, nodes: int, seed: int) -> list[Records]:
    """Each node's training records, every record to one node."""
    deal = {"label": _by_label, "domain": _by_domain}[task.skew]
    rng = np.random.default_rng([seed, nodes])
    for _ in range(1000):
        hands = deal(task, nodes, seed, rng)
        if min(map(len, hands)) >= RECORDS_MIN:
            return [task.train.take(np.sort(np.concatenate([hand]))) for hand in hands]
    raise ValueError(f"{task.name} has too few records to deal {RECORDS_MIN} to each of {nodes} nodes")


def _by_label(task: Task, nodes: int, seed: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Label by label, in shares drawn from Dirichlet(ALPHA)."""
    hands: list[list[NDArray[np.int64]]] = [[] for _ in range(nodes)]
    labels = task.train.examples.labels
    for label in range(len(task.labels)):
        rows = np.flatnonzero(labels == label)
        rows = rows[permutation(len(rows), f"{seed}:{label}")]
        ends = np.round(np.cumsum(rng.dirichlet([ALPHA] * nodes)) * len(rows)).astype(int)
        for hand, part in zip(hands, np.split(rows, ends[:-1]), strict=True):
            hand.append(part)
    return [np.concatenate(hand) for hand in hands]


def _by_domain(task: Task, nodes: int, seed: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """One domain to each node. Nodes of the same domain share its text."""
    del rng
    domains = sorted({domain for _, domain in task.strata})
    hands: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * nodes
    for k, domain in enumerate(domains):
        strata = [s for s, (_, d) in enumerate(task.strata) if d == domain]
        rows = np.flatnonzero(np.isin(task.train.strata, strata))
        rows = rows[permutation(len(rows), f"{seed}:{domain}")]
        mine = list(range(k, nodes, len(domains)))
        for node, part in zip(mine, np.array_split(rows, len(mine)), strict=True):
            hands[node] = part
    return hands


def shares_of(task: Task, held: Records) -> NDArray[np.float64]:
    """What share of a node's records each stratum has, float64 [strata]."""
    return np.bincount(held.strata, minlength=len(task.strata)) / len(held)
