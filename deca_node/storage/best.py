"""The best model of a run that may stop early, and the candidates whose rounds are not judged yet.

::

    DIR/candidate-3/    the model after round 3, until the members' held-out losses of that round are known
    DIR/best/           the model after the best of the judged rounds; best.json in it names the round and the loss

A candidate becomes the best by a rename. So there is a whole best model at all times, once there was one.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from deca_node.protocol.agreed.stopping import CANDIDATE, candidate
from deca_node.storage.durable import remove, repair_folder, swap_folder, write_file

BEST = "best"
NOTE = "best.json"


def keep_best(directory: Path, number: int, loss: float, until: int) -> bool:
    """Make the candidate of a round the best model, and remove the other candidates up to round ``until``.

    Returns False where there is no candidate of this round, as after a restart without it, or once it was kept. Raises
    OSError.
    """
    folder = directory / candidate(number)
    kept = folder.is_dir()
    if kept:
        write_file(folder / NOTE, [(json.dumps({"round": number, "heldout_loss": loss}) + "\n").encode()])
        swap_folder(folder, directory / BEST)
    for path, its_number in _candidates(directory):
        if its_number <= until:
            remove(path)
    return kept


def repair_best(directory: Path, *, fresh: bool) -> None:
    """Undo what a crash left half done. With ``fresh``, which begins a run, an earlier best model is set aside and
    candidates are removed. Raises OSError."""
    repair_folder(directory / BEST)
    for path in directory.glob(f".{CANDIDATE}*"):
        remove(path)
    if fresh:
        for path, _ in _candidates(directory):
            remove(path)
        if (best := directory / BEST).exists():
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(best.stat().st_mtime))
            best.rename(directory / f"{BEST}-{stamp}")


def _candidates(directory: Path) -> Iterator[tuple[Path, int]]:
    for path in list(directory.glob(f"{CANDIDATE}*")):
        with contextlib.suppress(ValueError):
            yield path, int(path.name.removeprefix(CANDIDATE))
