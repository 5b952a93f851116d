"""DIR/split.json: how the held-out part of a node's data was chosen, and which data that was.

The first start chooses. Later starts keep the choice, whatever has changed, because a record that moves from the
held-out part to training makes every later loss too low. A node with a checkpoint of an earlier release keeps that
release's rule, with the seed that it had.
"""

import json
from dataclasses import asdict
from pathlib import Path

from deca_node.numerics.data.choice import Census, Choice, HeldOut
from deca_node.protocol.errors import StorageError
from deca_node.protocol.options import Note, TrainerOptions
from deca_node.storage.durable import write_file
from deca_node.storage.jsons import UNFIT, parse
from deca_node.storage.manifest import checkpoints

CHOICE = "split.json"
FORMAT = 1
OTHER_DATA = "the data has changed"


class KeptChoice:
    """The choice of a node's first start, or that which is made now."""

    def __init__(self, options: TrainerOptions, note: Note) -> None:
        """Raises StorageError where the file cannot be read."""
        self._path = Path(options.directory) / CHOICE
        self._earlier: Census | None = None
        self._tokens = 0
        self._fresh = False
        kept = self._read()
        if kept is not None:
            choice, self._earlier, seed, holdout, self._tokens = kept
            if holdout != options.holdout:
                note(
                    f"holdout = {options.holdout:g} is not taken up: this node's first start held out {holdout:g}, "
                    "which stays so; for another share, begin anew with another --dir",
                    "warning",
                )
            self.held_out = HeldOut(options.settings.seed, seed, holdout, choice)
            return
        older = Choice("places") if checkpoints(self._path.parent) else None
        self._fresh = older is None
        self.held_out = HeldOut(options.settings.seed, options.seed, options.holdout, older)

    @property
    def changed(self) -> str:
        """What has changed in the data since the last start, as the beginning of a sentence; empty if nothing has."""
        before, now = self._earlier, self.held_out.census
        if before is None or now is None or before == now:
            return ""
        if before.records == now.records and before.total == now.total:
            return "the records of the data are in another order"
        if before.records == now.records:
            return f"{OTHER_DATA}: other records are among its {now.records:,}"
        return f"{OTHER_DATA}: it had {before.records:,} records, and has {now.records:,}"

    def weighed(self, tokens: int) -> int:
        """The tokens by which this node counts in the mean: those of its first start, so that its share is the same
        through the run; ``tokens`` at the first."""
        self._tokens = self._tokens or tokens
        return self._tokens

    def keep(self) -> None:
        """Write the choice down, durably, before the first step. Raises StorageError where a new one cannot be."""
        held, census = self.held_out, self.held_out.census
        assert held.choice is not None and census is not None, "the data are divided before"
        content = {
            "format": FORMAT,
            "choice": asdict(held.choice),
            "data": asdict(census),
            "seed": held.own_seed,
            "holdout": held.holdout,
            "tokens": self._tokens,
        }
        text = (json.dumps(content, indent=1) + "\n").encode()
        try:
            if not (self._path.exists() and self._path.read_bytes() == text):
                write_file(self._path, [text])
        except OSError as problem:
            if self._fresh:
                raise StorageError(
                    f"cannot write {self._path}: {problem.strerror}; make room, or repair the disk, and start again"
                ) from None

    def _read(self) -> tuple[Choice, Census, int, float, int] | None:
        if not self._path.exists():
            return None
        try:
            content = parse(self._path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
            choice, census = Choice(**content["choice"]), Census(**content["data"])
            # Earlier releases wrote no tokens.
            tokens = int(content.get("tokens", 0))
            return choice, census, int(content["seed"]), float(content["holdout"]), tokens
        except (OSError, *UNFIT) as problem:
            raise StorageError(
                f"{self._path} cannot be read ({problem}), so it is unknown which records are held out; bring the file "
                "back, or begin anew with another --dir"
            ) from None
