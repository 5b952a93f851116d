"""Where the value of a setting comes from: the first of flag, environment variable, file and default that has one.

A start that names a node's folder, but no model and no data, goes on with the settings of the last start there. These
values rank between file and default.

Both kinds of settings are read in the same way and never mixed: a key of ``run.toml`` in ``node.toml`` is refused, and
so is the reverse. Each value remembers its source. ``deca-node config --show`` prints it, and an error sentence names
the place to change.
"""

import dataclasses
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.texts import expanded_path
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.settings import check_names, nearest
from deca_node.protocol.errors import SettingsError
from deca_node.storage.folder import SETTINGS
from deca_node.storage.jsons import UNFIT, parse

SettingsT = TypeVar("SettingsT", RunSettings, NodeSettings)
SettingsKind = type[RunSettings] | type[NodeSettings]

FILES: Mapping[SettingsKind, str] = {RunSettings: "run.toml", NodeSettings: "node.toml"}
FILE_VARIABLES = ("DECA_RUN_FILE", "DECA_NODE_FILE")
"""Variables with the paths of the two files."""
SWITCHES = ("DECA_NATIVE", "DECA_DEBUG")
"""Variables that other modules read: ``DECA_NATIVE=0`` turns the compiled codec off, ``DECA_DEBUG=1`` prints the
traceback of an error."""
FILE_BYTES_MAX = 1 << 18
TYPE_WORDS: Mapping[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}

# Kubernetes sets these variables in every container that starts after a service whose name begins with "deca".
_SERVICE_LINK = re.compile(r"DECA(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_[A-Z0-9_]+)?)")
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class SourcedValue:
    """The value of one setting, and its source.

    ``where`` is ``--rounds``, ``DECA_ROUNDS``, ``run.toml:rounds``, ``DIR/settings.json:rounds`` or ``default``.
    """

    value: Any
    where: str


@dataclass(frozen=True)
class Loaded:
    """Both configurations, and the source of every setting by its name (names are unique across the two)."""

    run: RunSettings
    node: NodeSettings
    sources: Mapping[str, SourcedValue]
    last_start: Path | None = None
    """The file with the settings of the last start, where this start goes on with them."""


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    run_file: Path | None,
    node_file: Path | None,
    go_on: bool = False,
) -> Loaded:
    """Put both configurations together. Raises SettingsError that names the wrong place.

    ``flags`` holds the flags that were given on the command line, by setting name, as text or in the setting's type.
    A file that is None is not read. An empty variable counts as not set. ``go_on`` allows to go on with the settings of
    the last start.
    """
    _refuse_unknown_variables(environ)
    run = _sources(RunSettings, flags, environ, _read_file(run_file, RunSettings, NodeSettings))
    node = _sources(NodeSettings, flags, environ, _read_file(node_file, NodeSettings, RunSettings))
    last = _last_start(run | node) if go_on else None
    if last:
        _fill_from(last, run, node)
    return Loaded(_build(RunSettings, run), _build(NodeSettings, node), run | node, last)


def as_document(loaded: Loaded) -> dict[str, dict[str, dict[str, Any]]]:
    """Every setting with its value, its unit and its source, for JSON."""
    return {
        name: {
            field.name: {
                "value": getattr(settings, field.name),
                "unit": field.metadata["unit"],
                "where": loaded.sources[field.name].where,
            }
            for field in dataclasses.fields(settings)
        }
        for name, settings in (("run", loaded.run), ("node", loaded.node))
    }


def run_as_toml(run: RunSettings) -> str:
    """The text of a run.toml with every setting in it, for a newcomer to adopt."""
    return "".join(f"{name} = {_toml(getattr(run, name))}\n" for name in setting_names(RunSettings))


def changed_as_toml(settings: RunSettings | NodeSettings) -> str:
    """The text of a run.toml or node.toml with the values that differ from the defaults."""
    plain = type(settings)()
    changed = {name: getattr(settings, name) for name in setting_names(type(settings))}
    return "".join(f"{name} = {_toml(value)}\n" for name, value in changed.items() if value != getattr(plain, name))


def _toml(value: Any) -> str:
    # Strings, numbers and booleans are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)


def setting_names(kind: SettingsKind) -> list[str]:
    """The names of one kind's settings, in the order of their declaration."""
    return [field.name for field in dataclasses.fields(kind)]


def flag_of(name: str) -> str:
    """``inner_steps`` is ``--inner-steps`` on the command line."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """``inner_steps`` is ``DECA_INNER_STEPS`` in the environment."""
    return "DECA_" + name.upper()


def _sources(
    kind: SettingsKind, flags: Mapping[str, Any], environ: Mapping[str, str], file: Mapping[str, SourcedValue]
) -> dict[str, SourcedValue]:
    sources = {}
    for field in dataclasses.fields(kind):
        flag, variable = flag_of(field.name), variable_of(field.name)
        if field.name in flags:
            sources[field.name] = SourcedValue(_typed(field, flags[field.name], flag), flag)
        elif environ.get(variable):
            sources[field.name] = SourcedValue(_typed(field, environ[variable], variable), variable)
        elif field.name in file:
            sources[field.name] = file[field.name]
        else:
            sources[field.name] = SourcedValue(field.default, "default")
    return sources


def _read_file(path: Path | None, kind: SettingsKind, other: SettingsKind) -> dict[str, SourcedValue]:
    if path is None:
        return {}
    table = _read_toml(path)
    _refuse_foreign_keys(table, path, kind, other)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    return {
        name: SourcedValue(_typed(fields[name], value, f"{path}:{name}", from_text=False), f"{path}:{name}")
        for name, value in table.items()
    }


def _read_toml(path: Path) -> dict[str, Any]:
    """The file's table. The file may come from a member of the run, so its size and its depth are checked too."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise SettingsError(f"{path} is longer than {FILE_BYTES_MAX:,} bytes, which no settings file is")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except (ValueError, RecursionError):
        raise SettingsError(
            f"{path} is not valid TOML: it is nested too deeply or has a number that is too long"
        ) from None


def _refuse_foreign_keys(table: Mapping[str, Any], path: Path, kind: SettingsKind, other: SettingsKind) -> None:
    why = "it concerns this node only" if other is NodeSettings else "it must be equal on all nodes"
    for name, value in table.items():
        if name in setting_names(other):
            raise SettingsError(f"{path}: {name!r} belongs to {FILES[other]}, because {why}")
        if isinstance(value, dict):
            raise SettingsError(f"{path}: [{name}] is a table; write settings at the top of the file, without tables")
    check_names(table, setting_names(kind), str(path))


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = [variable_of(name) for kind in FILES for name in setting_names(kind)] + [*FILE_VARIABLES, *SWITCHES]
    for name in environ:
        if name.startswith("DECA_") and name not in known and not _SERVICE_LINK.fullmatch(name):
            raise SettingsError(f"the environment sets {name}, which is not a setting{nearest(name, known)}")


# --- the last start in the node's folder --------------------------------------------------------------

ONCE = frozenset({"dir", "alone"})
"""Settings that are meant for one start only."""
EITHER = (("insecure",), ("tls_cert", "tls_key", "tls_ca"))
"""Plaintext or a certificate: this start's choice ends the last start's other choice."""


def _last_start(sources: Mapping[str, SourcedValue]) -> Path | None:
    """The file with the settings of the last start, if this start names the folder, and neither model nor data."""
    if sources["model"].value or sources["data"].value or not sources["dir"].value:
        return None
    path = Path(expanded_path(sources["dir"].value)) / SETTINGS
    return path if path.is_file() else None


def _fill_from(path: Path, run: dict[str, SourcedValue], node: dict[str, SourcedValue]) -> None:
    """Put the last start's values in the place of defaults. Names that this version does not know are left out."""
    try:
        document = parse(path.read_text(encoding="utf-8"))
        kept = {name: fact["value"] for kind in ("run", "node") for name, fact in document[kind].items()}
    except (OSError, *UNFIT):
        raise SettingsError(f"{path} cannot be read; give the settings as flags, as at the first start") from None
    for one, other in (EITHER, EITHER[::-1]):
        if any(node[name].value for name in one):
            kept = {name: value for name, value in kept.items() if name not in other}
    for kind, sources in ((RunSettings, run), (NodeSettings, node)):
        for field in dataclasses.fields(kind):
            given = sources[field.name].where != "default"
            if not given and field.name not in ONCE and kept.get(field.name, field.default) != field.default:
                where = f"{path}:{field.name}"
                sources[field.name] = SourcedValue(_typed(field, kept[field.name], where, from_text=False), where)


# --- values -------------------------------------------------------------------------------------------


def _typed(field: "dataclasses.Field[Any]", value: Any, where: str, from_text: bool = True) -> Any:
    """``value`` in the field's type. Text is converted if it comes from a flag or a variable (``from_text``), not if it
    comes from TOML, which has types of its own."""
    reader: Callable[[str], Any] = _boolean if field.type is bool else field.type  # type: ignore[assignment]
    try:
        if isinstance(value, str) and from_text:
            return reader(value)
        if type(value) is int and field.type is float:
            return float(value)
    except (ValueError, OverflowError):
        pass
    if type(value) is not field.type:
        raise SettingsError(f"{where} must be {TYPE_WORDS[field.type]}, got {_brief(value)}")
    return value


def _brief(value: Any, length_max: int = 200) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print whole numbers of more than 4300 digits.
        text = "a number with very many digits"
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def _build(kind: type[SettingsT], sources: Mapping[str, SourcedValue]) -> SettingsT:
    try:
        return kind(**{name: source.value for name, source in sources.items()})
    except SettingsError as error:
        raise SettingsError(str(error) + _origins(str(error), sources)) from error


def _origins(sentence: str, sources: Mapping[str, SourcedValue]) -> str:
    """The sources of the settings that an error sentence names, as in ``rounds = 0``."""
    named = [name for name in sources if re.search(rf"(?<!\w){name} <?=", sentence)]
    given = [f"{name} comes from {sources[name].where}" for name in named if sources[name].where != "default"]
    return f" ({', '.join(given)})" if given else ""
