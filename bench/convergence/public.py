"""The paper's own data sets, if the user has them: turned into records and dealt to nodes, one file per node.

::

    python -m bench.convergence.public ag_news --source ./ag_news --nodes 8 --out ./dealt

``--source`` is a folder that ``datasets`` has saved (``save_to_disk``), the name of a set that it has in its cache or
may fetch, or one file: JSON lines, a JSON list, or CSV with a header. Only the first two need the package ``datasets``.
The shares of the nodes in each label are drawn from Dirichlet(alpha), as in the paper. A set without labels is dealt
evenly. The results are files for ``deca-node start --data``, with ``task = classification`` and the printed labels, or
with ``causal-lm``.
"""

import argparse
import csv
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deca_node.numerics.data.sequences import permutation
from deca_node.protocol.errors import DataError, DecaError

Row = Mapping[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class PublicSet:
    """One set: the record of a row, its labels in the order of their numbers, and its name in ``datasets``."""

    record: Callable[[Row], Record | None]
    labels: tuple[str, ...]
    hub_name: str
    split: str = "train"


def _ag_news(row: Row) -> Record:
    return {"text": row["text"], "label": int(row["label"])}


def _mnli(row: Row) -> Record | None:
    """Pairs whose annotators did not agree have the label -1 and are left out."""
    if int(row["label"]) < 0:
        return None
    return {"text": row["premise"], "text_pair": row["hypothesis"], "label": int(row["label"])}


def _alpaca(row: Row) -> Record:
    asked = f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"]
    return {"prompt": f"{asked}\n\n", "completion": row["output"]}


NWGI_LABELS = {
    "strong negative": "negative",
    "moderately negative": "negative",
    "mildly negative": "neutral",
    "neutral": "neutral",
    "mildly positive": "neutral",
    "moderately positive": "positive",
    "strong positive": "positive",
}
"""The set has seven labels. Of the three used here, neutral includes the mild ones, as in FinGPT."""


def _nwgi(row: Row) -> Record:
    return {"text": row["news"], "label": NWGI_LABELS[row["label"].strip().lower()]}


SETS = {
    "ag_news": PublicSet(_ag_news, ("World", "Sports", "Business", "Sci/Tech"), "fancyzhx/ag_news"),
    "mnli": PublicSet(_mnli, ("entailment", "neutral", "contradiction"), "nyu-mll/multi_nli"),
    "alpaca": PublicSet(_alpaca, (), "tatsu-lab/alpaca"),
    "tfns": PublicSet(_ag_news, ("bearish", "bullish", "neutral"), "zeroshot/twitter-financial-news-sentiment"),
    "nwgi": PublicSet(_nwgi, ("negative", "neutral", "positive"), "oliverwang15/news_with_gpt_instructions"),
}


def records(name: str, source: str) -> Iterator[Record]:
    """The set's records. Raises DataError if the source cannot be read or a row does not fit the set."""
    chosen = SETS[name]
    for number, row in enumerate(rows(source, chosen.split), start=1):
        try:
            record = chosen.record(row)
        except (KeyError, ValueError, TypeError, AttributeError) as problem:
            raise DataError(f"{source}: row {number} is not a row of {name}: {problem!r}") from problem
        if record is None:
            continue
        label = record.get("label")
        if label is not None:
            known = label in chosen.labels or (isinstance(label, int) and 0 <= label < len(chosen.labels))
            if not known:
                raise DataError(f"{source}: row {number} has the label {label!r}, and {name} has {chosen.labels}")
            record["label"] = chosen.labels[label] if isinstance(label, int) else label
        yield record


def rows(source: str, split: str) -> Iterable[Row]:
    """The rows by column name, from any source."""
    path = Path(source)
    if path.is_file():
        return _FILES.get(path.suffix, _json_lines)(path)
    datasets = _datasets()
    found = datasets.load_from_disk(source) if path.is_dir() else datasets.load_dataset(source)
    # A saved set is one split or a dictionary of splits.
    if not isinstance(found, Mapping):
        return found
    if split not in found:
        raise DataError(f"{source} has the splits {', '.join(found)}, and no {split!r}")
    return found[split]


def deal(found: Sequence[Record], labels: Sequence[str], nodes: int, alpha: float, seed: int) -> list[list[Record]]:
    """Each node's records, in shares drawn from Dirichlet(``alpha``) for each label, or evenly without labels."""
    rng = np.random.default_rng([seed, nodes])
    hands: list[list[Record]] = [[] for _ in range(nodes)]
    for label in labels or [None]:
        mine = [record for record in found if record.get("label") == label]
        shares = rng.dirichlet([alpha] * nodes) if labels else np.full(nodes, 1 / nodes)
        ends = np.round(np.cumsum(shares) * len(mine)).astype(int)
        order = permutation(len(mine), f"{seed}:{label}")
        for hand, part in zip(hands, np.split(order, ends[:-1]), strict=True):
            hand.extend(mine[i] for i in part)
    return hands


def write(hands: Sequence[Sequence[Record]], out: Path) -> None:
    """Write one file of JSON lines per node."""
    out.mkdir(parents=True, exist_ok=True)
    for number, hand in enumerate(hands):
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in hand)
        (out / f"node-{number}.jsonl").write_text(lines, encoding="utf-8")


def main() -> int:
    """Deal one set, and return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.convergence.public", description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=tuple(SETS))
    parser.add_argument("--source", help="folder, file or name (default: the name in datasets)")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=0.25, help="of the Dirichlet distribution")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for node-0.jsonl, node-1.jsonl, ...")
    arguments = parser.parse_args()
    chosen = SETS[arguments.name]
    try:
        found = list(records(arguments.name, arguments.source or chosen.hub_name))
    except DecaError as problem:
        print(problem, file=sys.stderr)
        return 1
    hands = deal(found, chosen.labels, arguments.nodes, arguments.alpha, arguments.seed)
    write(hands, arguments.out)
    print(f"{len(found)} records to {arguments.nodes} nodes: {', '.join(str(len(hand)) for hand in hands)}")
    if chosen.labels:
        print(f'task = "classification"\nlabels = "{", ".join(chosen.labels)}"')
    return 0


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            "saved or named data sets need the package datasets: pip install -c constraints.txt '.[sets]'; a file of "
            "JSON lines, JSON or CSV needs no package"
        ) from None


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _object(line, f"{path} line {number}")


def _json_list(path: Path) -> Iterator[Row]:
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise DataError(f"{path} is not JSON: {problem}") from problem
    if not isinstance(whole, list):
        raise DataError(f"{path} is not a JSON list of rows")
    yield from whole


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _object(line: str, where: str) -> Row:
    try:
        found = json.loads(line)
    except ValueError as problem:
        raise DataError(f"{where} is not JSON: {problem}") from problem
    if not isinstance(found, dict):
        raise DataError(f"{where} is not a JSON object")
    return found


_FILES: Mapping[str, Callable[[Path], Iterator[Row]]] = {".json": _json_list, ".csv": _csv}


if __name__ == "__main__":
    sys.exit(main())
