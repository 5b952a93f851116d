"""The inputs of a testbed, made from nothing: one toy model for all nodes, and private records for each.

::

    python -m deca_node.lab.demo.inputs FOLDER NAME...

    FOLDER/model/            a small model and its tokenizer, an ordinary checkpoint
    FOLDER/data/NAME.jsonl   text of NAME alone: a package of the standard library

Containers run this once before their nodes start. Complete inputs are left as they are.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from deca_node.lab.demo.texts import private_corpora, write_corpus
from deca_node.lab.demo.toy_model import EachStep, Recipe, ToyModel, make_toy_model

CORPUS_BYTES = 200_000
PROGRESS_SECONDS = 10.0
"""The shortest time between two lines of progress."""


def make_inputs(
    folder: Path, names: Sequence[str], recipe: Recipe | None = None, seed: int = 0, progress: EachStep | None = None
) -> ToyModel:
    """Make the model and the records of the nodes ``names``. Equal arguments give equal files on equal machines.

    Raises DataError if this Python has too little text for so many nodes, and StorageError if the model cannot be
    written.
    """
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name, corpus in zip(names, private_corpora(len(names)), strict=True):
        write_corpus(corpus, data / f"{name}.jsonl", limit_bytes=CORPUS_BYTES, seed=seed)
    return make_toy_model(folder / "model", recipe, progress)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--steps", default=Recipe().steps, show_default=True, help="Steps of the model's first training.")
def main(folder: Path, names: tuple[str, ...], steps: int) -> None:
    """Make a toy model and private records for the nodes NAME..., in FOLDER."""
    click.echo(f"training a toy model in {folder / 'model'} for {steps} steps")
    model = make_inputs(folder, names, Recipe(steps=steps), progress=_told(click.echo))
    click.echo(f"{model.path}: {model.parameters:,} parameters; {folder / 'data'}: records of {', '.join(names)}")


def _told(say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> EachStep:
    """Prints the step, its loss and the remaining time at intervals."""
    began = last = clock()

    def tell(step: int, steps: int, loss: float) -> None:
        nonlocal last
        now = clock()
        if now - last >= PROGRESS_SECONDS:
            last = now
            left = (now - began) / step * (steps - step)
            say(f"step {step} of {steps}, loss {loss:.3f}, {left:.0f} s left")

    return tell


if __name__ == "__main__":
    main()
