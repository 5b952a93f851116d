"""A run that writes everything that a node keeps, and the check of a start after a crash at any point of it.

The run writes its settings, run.json, starting values, block versions, checkpoints before and within visits (and one
twice at the same place), and the tuned model. tests/storage/power_cuts.py says which states a crash can leave.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from deca_node.daemon.settings.sources import load_settings
from deca_node.daemon.supervise import keep_settings
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.schedule import Step
from deca_node.storage.durable import OLD, PARTIAL
from deca_node.storage.folder import FINAL, finished, node_directory, write_run
from deca_node.storage.manifest import DAMAGED, newest_sound
from tests.numerics.saving.checkpoint_runs import POSITIONS, SETTINGS, STEPS, Notes, checkpoint, do, make, parameters
from tests.storage.power_cuts import State

Said = tuple[str, Step]
"""A promise of the run: a checkpoint is being written, or is written, or the tuned model is."""

WRITTEN = [Step(0, 2), Step(1, 0), Step(5, 0), Step(5, 2), Step(5, 2), Step(6, 0), POSITIONS[-1]]
"""Where the run is checkpointed."""
NODE = "parties/north"
"""The node's folder; the node makes the one above it too."""


def begin(folder: Path, agreement: Agreement, notes: Notes) -> Step:
    """What a start repairs, writes and chooses before its trainer loads; returns where it goes on."""
    keep_settings(folder, load_settings({}, {"name": "north", "dir": str(folder)}, None, None))
    write_run(folder, agreement, "model")
    manifest = newest_sound(folder, agreement, notes)
    return manifest.position if manifest else Step(0, 0)


def go_on(trainer: Trainer, position: Step, until: Step) -> None:
    for step in STEPS:
        if position <= step < until:
            do(trainer, step)


@dataclass
class Right:
    """What an undisturbed run has at each position, and at its end."""

    agreement: Agreement
    parameters: dict[Step, Tensor] = field(default_factory=dict)
    final: dict[str, bytes] = field(default_factory=dict)


def whole_run(home: Path, agreement: Agreement, say: Callable[[Said], None]) -> Right:
    """The run, in a new folder below ``home``. ``say`` is told what a later start may rely on."""
    right = Right(agreement)
    with node_directory(home / NODE) as folder:
        begin(folder, agreement, Notes())
        trainer, at = make(folder), Step(0, 0)
        right.parameters[at] = parameters(trainer)
        for position in WRITTEN:
            go_on(trainer, at, position)
            right.parameters[position] = parameters(trainer)
            say(("writing", position))
            checkpoint(trainer, position)
            say(("written", position))
            at = position
        assert isinstance(trainer.obey(c.Save(FINAL)), e.Saved)
        say(("final", at))
    right.final = content(folder / FINAL)
    return right


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Starts:
    """Starts a node in folders that crashes left, and checks that it goes on as it must."""

    def __init__(self, right: Right, home: Path, to_the_end: bool = False) -> None:
        self.restored: set[frozenset[tuple[str, bytes]]] = set()
        """The folders, as starts repair them, from which a trainer was restored."""
        self._right = right
        self._home = home
        self._to_the_end = to_the_end
        self._tried = 0

    @contextmanager
    def left_by(self, state: State) -> Iterator[Path]:
        """The folder above the node's, as a crash left it."""
        self._tried += 1
        folder = state.write(self._home / str(self._tried))
        yield folder
        shutil.rmtree(folder)

    def check(self, state: State) -> None:
        """Start in a folder of such a state."""
        with self.left_by(state) as folder:
            self.start(folder, state.said, f"call {state.point}")

    def start(self, home: Path, said: Sequence[Said], about: str) -> None:
        """A start goes on from the newest checkpoint that was promised, or from the one that was being written."""
        notes, right = Notes(), self._right
        with node_directory(home / NODE) as node:
            complete = finished(node, SETTINGS)
            position = begin(node, right.agreement, notes)
            assert position in {_last(said, "written"), _last(said, "writing")}, f"{about}: {position}"
            assert notes.warnings == [], about
            left = [path.name for path in node.rglob("*") if path.name.endswith((PARTIAL, OLD, DAMAGED))]
            assert left == [], about
            assert complete or ("final", POSITIONS[-1]) not in said
            if complete:
                assert content(node / FINAL) == right.final
            repaired = frozenset((name, data) for name, data in content(node).items() if "/" in name)
            if repaired not in self.restored:
                self.restored.add(repaired)
                self._restore(node, position)

    def _restore(self, node: Path, position: Step) -> None:
        trainer = make(node)
        assert trainer.ready().position == position
        assert torch.equal(parameters(trainer), self._right.parameters[position])
        if self._to_the_end:
            go_on(trainer, position, POSITIONS[-1])
            checkpoint(trainer, POSITIONS[-1])
            assert torch.equal(parameters(make(node)), self._right.parameters[POSITIONS[-1]])


def _last(said: Sequence[Said], what: str) -> Step:
    return next((position for kind, position in reversed(said) if kind == what), Step(0, 0))
