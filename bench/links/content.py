"""Makes the model and the texts of :mod:`bench.links` in a process of its own. Prints the number of a layer's
parameters."""

import json
import sys
from pathlib import Path

from deca_node.lab.demo.texts import private_corpora, write_corpus
from deca_node.lab.demo.toy_model import Recipe, make_toy_model
from deca_node.numerics.forecast.shapes import meta_model, model_shape

CORPUS_BYTES = 400_000
HEAD_WIDTH = 64


def main() -> None:
    """Make everything in the folder that the job names."""
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    heads = max(1, job["hidden"] // HEAD_WIDTH)
    recipe = Recipe(
        hidden=job["hidden"], layers=2, heads=heads, key_value_heads=heads, steps=1, batch_size=1, threads=1
    )
    make_toy_model(folder / "model", recipe)
    for name, corpus in zip(job["names"], private_corpora(len(job["names"])), strict=True):
        write_corpus(corpus, folder / f"{name}.jsonl", limit_bytes=CORPUS_BYTES, seed=0)
    shape = model_shape(meta_model(str(folder / "model"), 128), 1, "toy")
    print(next(block.elements for block in shape.blocks if block.layers))


if __name__ == "__main__":
    main()
