"""The trackers that a node's settings ask for."""

import importlib.util
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.status.journal import Curves
from deca_node.daemon.tracking.relay import Relay
from deca_node.daemon.tracking.services import SERVICES, Begin
from deca_node.daemon.tracking.tensorboard import TensorBoard
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError, StorageError

PROJECT = "deca-node"
FOLDER = "track"
"""The trackers' own files, in the node's folder."""


class Trackers:
    """Several receivers as one."""

    def __init__(self, receivers: Sequence[Curves]) -> None:
        self._receivers = receivers

    def add(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        """Add numbers at one step."""
        for each in self._receivers:
            each.add(group, figures, step)

    def close(self) -> None:
        """No more numbers will come."""
        for each in self._receivers:
            each.close()

    def finish(self) -> None:
        """Wait until the services have what is left. This blocks."""
        for each in self._receivers:
            if isinstance(each, Relay):
                each.finish()


def trackers(settings: NodeSettings, name: str, run: RunSettings, directory: Path) -> Trackers:
    """The trackers of one node. Raises SettingsError if the package of one is not installed, StorageError if its files
    cannot be written."""
    asked = settings.trackers
    check_installed(asked)
    receivers: list[Curves] = []
    if "tensorboard" in asked:
        folder = Path(settings.tensorboard) / name if settings.tensorboard else directory / FOLDER / "tensorboard"
        receivers.append(TensorBoard(folder))
    for service in (each for each in asked if each in SERVICES):
        try:
            receivers.append(Relay(service, _begin(settings, name, run, directory)))
        except OSError as problem:
            raise StorageError(
                f"no curves can go to {service}: {directory / FOLDER}: {problem.strerror or problem}"
            ) from None
    return Trackers(receivers)


def check_installed(asked: Sequence[str]) -> None:
    """Raise SettingsError if the package of a service is not installed."""
    for service in asked:
        if service in SERVICES and importlib.util.find_spec(service) is None:
            raise SettingsError(
                f"track names {service}, but its package is not installed here: pip install 'deca-node[{service}]', or "
                "leave the name out"
            )


def _begin(settings: NodeSettings, name: str, run: RunSettings, directory: Path) -> Begin:
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    project = settings.track_project or PROJECT
    return Begin(project, run.run_name, name, _own_id(folder, name), str(folder), asdict(run))


def _own_id(folder: Path, name: str) -> str:
    """The name of this node's run at a service. It is drawn once, so that a later start goes on in the same run."""
    path = folder / "id"
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        made = f"{re.sub('[^A-Za-z0-9_.-]', '-', name)}-{secrets.token_hex(4)}"
        path.write_text(made + "\n", encoding="utf-8")
        return made
