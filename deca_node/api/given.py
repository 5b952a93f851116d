"""What the caller gave, as ``deca-node start`` takes it: keyword arguments become flags, and values become files.

With ``join`` and without a model, the members there give the run's settings and the start model, as for
``deca-node join``.

A value comes from the first of keyword argument, ``DECA_*`` variable, file and default that has one, as on the command
line. All checks of single settings are made here, before a process is started.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deca_node.api.local import local_peers
from deca_node.daemon.settings.before_start import settle
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.own_address import find_own_address
from deca_node.daemon.settings.sources import Loaded, flag_of, load_settings, setting_names, variable_of
from deca_node.daemon.settings.texts import expanded_path
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.settings import check_names
from deca_node.protocol.errors import DataError, SettingsError
from deca_node.storage.folder import JOINED_RUN

PEERS, RECORDS = "peers.txt", "data.jsonl"
ALONE = "node"
"""The name of a node without peers that has no other name."""

OWNER_ONLY = 0o600

Peers = str | Path | Sequence[str] | None
"""A peers file; or NAME@HOST:PORT of each node; or an empty list for a node without peers; None for the default."""
Records = str | Path | Iterable[Mapping[str, Any]]
"""A file or a folder; or the records themselves, which are then written into the node's folder."""


@dataclass
class Given:
    """Everything that a start needs. ``files`` are written into the node's folder before the start."""

    settings: dict[str, Any]
    loaded: Loaded
    directory: Path
    name: str
    run: Path | None = None
    config: Path | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    adopts: bool = False
    """Whether the run's settings and the start model come from the members in ``join``."""

    @property
    def words(self) -> list[str]:
        """The words of ``deca-node`` that say the same: ``start`` and its flags, or ``join``, the members and flags."""
        if not self.adopts:
            return ["start", *self.flags]
        return ["join", *map(str, self.loaded.node.seeds), *self.flags]

    @property
    def flags(self) -> list[str]:
        """The flags that say the same."""
        words = [] if self.run is None else ["--run", str(self.run)]
        words += [] if self.config is None else ["--config", str(self.config)]
        for name, value in self.settings.items():
            if not (self.adopts and name == "join"):
                words += _words(name, value)
        return words

    def with_the_run(self) -> Loaded:
        """The settings, with those of the run that a node has joined, as soon as it has them."""
        kept = self.directory / JOINED_RUN
        if not (self.adopts and kept.exists()):
            return self.loaded
        return dataclasses.replace(self.loaded, run=load_settings({}, {}, kept, None).run)

    def write_files(self) -> None:
        """Write the caller's records and peers into the node's folder. They are private: mode 0600."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            path = self.directory / name
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "wb") as file:
                file.write(content)


def given(
    model: str | Path | None,
    data: Records | None,
    peers: Peers,
    run: str | Path | None,
    config: str | Path | None,
    settings: Mapping[str, Any],
) -> Given:
    """Put everything together. Raises SettingsError, PeersError or DataError with one sentence."""
    check_names(settings, _known(), "keyword arguments")
    plain = {name: _plain(name, value) for name, value in settings.items() if value is not None}
    files: dict[str, bytes] = {}
    if model is not None:
        plain["model"] = str(model)
    if isinstance(data, str | Path):
        plain["data"] = str(data)
    elif data is not None:
        files[RECORDS] = _as_lines(data)
    if isinstance(peers, str | Path):
        plain["peers"] = str(peers)
    elif peers is not None:
        files[PEERS] = _listed(peers, plain)
    loaded = _load(plain, run, config)
    adopts = bool(loaded.node.join and not loaded.node.model)
    return _settled(Given(plain, loaded, Path(), "", _path(run), _path(config), files, adopts))


def _settled(made: Given) -> Given:
    """With name and folder filled in, and the paths of the files that will lie there."""
    plain, node = made.settings, made.loaded.node
    if not (node.name and node.dir):
        if PEERS in made.files:
            made.name = node.name
            made.directory = Path("deca-data") / node.name
        else:
            own = find_own_address(node, _certified(node))
            node = settle(node, own.name, own.listen)
            made.name, made.directory = node.name, Path(node.dir)
    else:
        made.name, made.directory = node.name, Path(expanded_path(node.dir))
    plain |= {"name": made.name, "dir": str(made.directory)}
    for setting, name in (("peers", PEERS), ("data", RECORDS)):
        if name in made.files:
            plain[setting] = str(made.directory / name)
    made.loaded = _load(plain, made.run, made.config)
    return made


def _listed(peers: Sequence[str], plain: dict[str, Any]) -> bytes:
    """The text of the peers file. A node without peers listens on a free port of this machine."""
    if not peers:
        plain.setdefault("name", ALONE)
        if not any(name in plain for name in ("tls_cert", "insecure")):
            plain["insecure"] = 1
        peers = local_peers(str(plain["name"]))
    if "name" not in plain:
        raise SettingsError("peers is a list, which does not say which of them this node is: give name as well")
    return "".join(f"{peer}\n" for peer in peers).encode()


def _as_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """The records as JSON lines. Raises DataError for a record that is no mapping, or that JSON cannot hold."""
    lines = []
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise DataError(f"record {number} of data is {type(record).__name__}, and not a mapping such as a dict")
        try:
            lines.append(json.dumps(dict(record), ensure_ascii=False) + "\n")
        except (TypeError, ValueError) as error:
            raise DataError(f"record {number} of data cannot be written as JSON: {error}") from None
    return "".join(lines).encode()


def _load(plain: Mapping[str, Any], run: str | Path | None, config: str | Path | None) -> Loaded:
    known = {variable_of(name) for name in _known()}
    environ = {name: value for name, value in os.environ.items() if name in known}
    return load_settings(plain, environ, _path(run) or _usual("run"), _path(config) or _usual("node"))


def _usual(name: str) -> Path | None:
    path = Path(f"{name}.toml")
    return path if path.exists() else None


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(expanded_path(str(given)))


def _known() -> list[str]:
    return [*setting_names(RunSettings), *setting_names(NodeSettings)]


def _certified(node: NodeSettings) -> str:
    from deca_node.daemon.security.security import Security

    return Security(node).certified_name


def _plain(name: str, value: Any) -> Any:
    """A value as the settings take it: paths are text, and True is one ``--insecure``."""
    if isinstance(value, Path):
        return str(value)
    return int(value) if name == "insecure" else value


def _words(name: str, value: Any) -> list[str]:
    """The words of one setting on the command line."""
    flag = flag_of(name)
    if name == "insecure":
        return [flag] * value
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
