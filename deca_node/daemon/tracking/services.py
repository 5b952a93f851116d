"""Weights & Biases and MLflow, each as a receiver of named numbers over steps. Runs in a process of its own.

Where a service's server is, and who the user is, stands in the service's own variables (``WANDB_*``, ``MLFLOW_*``).
Both work offline: ``WANDB_MODE=offline`` keeps the curves in the node's folder for `wandb sync`, and MLflow without an
address writes them there.

A node that was stopped goes on in the same run of the service.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Begin:
    """What a service is told first. ``settings`` are the run's; ``folder`` is for the service's own files; ``id`` names
    this node's run for ever."""

    project: str
    run: str
    node: str
    id: str
    folder: str
    settings: Mapping[str, Any]


class Service(Protocol):
    """One run at a service."""

    def add(self, figures: Mapping[str, float], step: int) -> None:
        """Add numbers at one step."""

    def close(self) -> None:
        """Send what is left."""


class WandB:
    """A run of Weights & Biases. The name of the machine, the command line, code and output are not sent."""

    def __init__(self, begin: Begin) -> None:
        import wandb

        quiet = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        self._run = wandb.init(
            project=begin.project,
            group=begin.run,
            name=begin.node,
            id=begin.id,
            resume="allow",
            config=dict(begin.settings),
            dir=begin.folder,
            settings=quiet,
        )
        # W&B's own steps only grow. After a crash steps are done again, so the run's steps are an axis of their own.
        self._run.define_metric(DONE)
        self._run.define_metric("*", step_metric=DONE)

    def add(self, figures: Mapping[str, float], step: int) -> None:
        """Add numbers at one step."""
        self._run.log({DONE: step, **figures})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class MLflow:
    """A run of an MLflow experiment."""

    def __init__(self, begin: Begin) -> None:
        if not os.environ.get(MLFLOW_PLACE):
            # MLflow writes into a folder only where it is told to; its other place without a server is a database.
            os.environ |= {MLFLOW_PLACE: (Path(begin.folder) / "mlruns").absolute().as_uri(), MLFLOW_FILES: "true"}
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(begin.project)
        note = Path(begin.folder) / MLFLOW_NOTE
        known = note.read_text(encoding="utf-8").strip() if note.exists() else None
        if known:
            mlflow.start_run(run_id=known)
            return
        # MLflow would note this user's name and the program's path.
        tags = {"deca.run": begin.run, "deca.node": begin.node, "mlflow.user": begin.node, SOURCE: "deca-node"}
        started = mlflow.start_run(run_name=f"{begin.run} {begin.node}", tags=tags)
        note.write_text(started.info.run_id + "\n", encoding="utf-8")
        mlflow.log_params(dict(begin.settings))

    def add(self, figures: Mapping[str, float], step: int) -> None:
        """Add numbers at one step. MLflow's servers take finite numbers only."""
        if finite := {name: value for name, value in figures.items() if math.isfinite(value)}:
            self._mlflow.log_metrics(finite, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._mlflow.end_run()


DONE = "steps done"
SOURCE = "mlflow.source.name"
MLFLOW_PLACE = "MLFLOW_TRACKING_URI"
MLFLOW_FILES = "MLFLOW_ALLOW_FILE_STORE"
MLFLOW_NOTE = "mlflow-run"
"""A file with the id of the node's run, so that a later start goes on in it."""

SERVICES: Mapping[str, Callable[[Begin], Service]] = {"wandb": WandB, "mlflow": MLflow}
