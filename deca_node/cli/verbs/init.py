"""``deca-node init``: writes run.toml, node.toml and peers.txt, from flags or from a few questions."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.reference import template
from deca_node.cli.views.progress import work
from deca_node.daemon.settings.address import is_loopback, parse_address
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.daemon.settings.peers_file import parse_peers
from deca_node.process.before_torch import set_before_torch
from deca_node.process.memory import settle_memory
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.planning.length import Length, fitting_length, fitting_rate
from deca_node.protocol.planning.presets import PRESETS
from deca_node.protocol.planning.units import seconds_text

if TYPE_CHECKING:
    from deca_node.numerics.pace import Pace

PEERS_HEAD = """\
# peers.txt for deca-node: one line per node, name@host:port. All parties use the same file.
"""
NAME, SECOND, PORT = "north", "south", 7001
EXCHANGED = 1.3
"""A step with its exchange on one machine takes so many times as long as its gradient alone."""

ENOUGH_PASSES = 0.5
"""Passes over the data for each block. Below this a run hardly changes the model, unless the data are many."""


@dataclass(frozen=True)
class Chosen:
    """A run's length that fits the time a person has, and what was tried for it; ``nodes`` share this machine."""

    minutes: float
    length: Length
    pace: Pace
    nodes: int

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of run.toml."""
        length = self.length
        return {
            "rounds": length.rounds,
            "inner_steps": length.inner_steps,
            "sequence_length": self.pace.sequence_length,
            "learning_rate": fitting_rate(self.pace.parameters),
        }

    @property
    def why(self) -> dict[str, str]:
        """For run.toml, why each of them is as it is."""
        return {
            "rounds": f"Chosen by init --minutes {self.minutes:g}: {self.told}.",
            "inner_steps": "Chosen by init, with rounds.",
            "sequence_length": "Chosen by init: nearly all records of this node's data fit a sequence of this length.",
            "learning_rate": f"Chosen by init for {self.pace.parameters:,} parameters; small models take larger steps.",
        }

    @property
    def told(self) -> str:
        """The run's length in words, with the time that it will take."""
        length, seconds = self.length, self.pace.step_seconds
        together = f" with {self.nodes} nodes at work on it" if self.nodes > 1 else ""
        rounds = f"{length.rounds} round{'s' * (length.rounds > 1)}"
        return (
            f"{rounds} of {length.blocks} blocks x {length.inner_steps} steps take about "
            f"{seconds_text(length.seconds)} on this machine{together}, where a gradient step takes "
            f"{seconds_text(seconds)} for a node alone; each block sees the data {length.block_passes:.1f} times"
        )

    @property
    def warning(self) -> str:
        """What is wrong with this length, if anything is."""
        if self.length.seconds > 60.0 * self.minutes:
            return "warning: this is the shortest run there is, and it takes longer; give more --minutes"
        if self.length.block_passes >= ENOUGH_PASSES:
            return ""
        return "warning: this is short, and the loss will hardly fall; give more --minutes, or a smaller model"


@click.command(
    epilog="""\b
Examples:
  Answer a few questions:
    deca-node init
  The same with flags, for two nodes on this machine:
    deca-node init --name north --model ./Qwen2.5-0.5B --data north.jsonl --insecure
  A run that ends within an hour on this machine:
    deca-node init --name north --model ./Qwen2.5-0.5B --data north.jsonl --insecure --minutes 60
  For a network, with certificates:
    deca-node init --name north --model ./Qwen2.5-0.5B --data north.jsonl \\
      --peer north@10.0.0.5:7001 --peer south@10.0.0.6:7001
  The second party, which takes the run's settings and the model from the first:
    deca-node init --join north.example:7001 --name south --listen 10.0.0.6:7001 --data south.jsonl

The files hold every setting with its explanation; lines that are commented out show the default. A flag or a DECA_*
variable of `deca-node start` overrides them.
"""
)
@click.option("--model", help="Folder of a Hugging Face checkpoint, or the id of a model on the hub.")
@click.option("--data", help="This node's private records, a file or a folder.")
@click.option("--name", help=f"This node's name.  [default: {NAME}, and {SECOND} with --join]")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME@HOST:PORT",
    help="A line of peers.txt; one for each node, this one included.  [default: two nodes on this machine]",
)
@click.option("--join", metavar="HOST:PORT", help="Join the run of the member at this address; write node.toml only.")
@click.option("--listen", metavar="HOST:PORT", help="With --join: the address to listen on.")
@click.option(
    "--insecure", is_flag=True, help="Plaintext: within this machine, or on any network if a peer is elsewhere."
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the working directory",
    help="Folder of the files.",
)
@click.option(
    "--preset",
    type=click.Choice(tuple(PRESETS)),
    help="How the run exchanges, by the line between the parties. `deca-node plan --preset` says what each costs.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.0),
    help="How long training may take. `init` tries a few steps on this machine, and chooses rounds, inner_steps, "
    "sequence_length and learning_rate for this model and these data.  [default: run.toml keeps its defaults]",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@debug_option
def init(into: Path, force: bool, **flags: Any) -> None:
    """Write the files that `deca-node start` reads: run.toml, node.toml and peers.txt.

    On a terminal `init` asks for what the flags leave open. It looks at model, data and GPU, says what it found, and
    overwrites no file without --force.
    """
    _check_absent(into, ("node.toml",) if flags["join"] else ("run.toml", "node.toml", "peers.txt"), force)
    answers = _ask(flags) if _on_terminal() else flags
    node = _node(answers)
    for finding in _look_at(answers):
        click.echo(finding)
    chosen = _choose(answers, node) if answers["minutes"] else None
    if chosen:
        click.echo("\n".join(filter(None, (f"length: {chosen.told}", chosen.warning))))
    files = dict(_files(answers, node, chosen))
    into.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (into / name).write_text(text, encoding="utf-8")
        click.echo(f"wrote {into / name}")
    click.echo(_next_steps(answers, into, chosen))


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _check_absent(into: Path, names: tuple[str, ...], force: bool) -> None:
    there = [str(into / name) for name in names if (into / name).exists()]
    if there and not force:
        raise SettingsError(
            f"init overwrites nothing, and {' and '.join(there)} exists: give --force, or another folder with --into"
        )


# --- answers ------------------------------------------------------------------------------------------


def _ask(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags, and an answer for each question that they leave open. A question's default is in brackets."""
    answers = dict(flags)
    if not flags["model"] and not flags["join"]:
        answers["model"] = click.prompt("Model, a folder or the id of a model on the hub", err=True)
    if not flags["data"]:
        answers["data"] = click.prompt("This node's private data, a file or a folder", err=True)
    if not flags["name"]:
        answers["name"] = click.prompt("Name of this node", default=_name(flags), err=True)
    if not flags["peers"] and not flags["join"]:
        question = "All nodes as NAME@HOST:PORT, with spaces between"
        answers["peers"] = tuple(click.prompt(question, default=" ".join(_peers(answers)), err=True).split())
    if flags["minutes"] is None and not flags["join"]:
        question = "Minutes that training may take on this machine; 0 leaves the run at its default length"
        answers["minutes"] = click.prompt(question, default=0.0, type=click.FloatRange(min=0.0), err=True)
    if flags["join"] and not flags["listen"]:
        answers["listen"] = click.prompt("Address to listen on, HOST:PORT", err=True)
    if not flags["insecure"]:
        question = "Go without certificates, so that names are not verified and nothing is encrypted?"
        answers["insecure"] = click.confirm(question, default=_on_this_machine(answers), err=True)
    return answers


def _name(answers: Mapping[str, Any]) -> str:
    return answers["name"] or (SECOND if answers["join"] else NAME)


def _peers(answers: Mapping[str, Any]) -> tuple[str, ...]:
    other = SECOND if _name(answers) != SECOND else NAME
    return answers["peers"] or (f"{_name(answers)}@127.0.0.1:{PORT}", f"{other}@127.0.0.1:{PORT + 1}")


def _on_this_machine(answers: Mapping[str, Any]) -> bool:
    if answers["join"]:
        try:
            return is_loopback(parse_address(answers["join"]).host)
        except ValueError as error:
            raise SettingsError(f"--join: {error}") from None
    return all(is_loopback(peer.host) for peer in parse_peers("\n".join(_peers(answers)), "--peer"))


# --- files --------------------------------------------------------------------------------------------


def _node(answers: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of node.toml. Raises SettingsError or PeersError for answers that do not fit together."""
    needed = ("data", "listen") if answers["join"] else ("model", "data")
    missing = [f"--{name}" for name in needed if not answers[name]]
    if missing:
        raise SettingsError(f"init needs {' and '.join(missing)}; on a terminal it asks for what is missing")
    node: dict[str, Any] = {"name": _name(answers), "model": answers["model"] or "", "data": answers["data"]}
    if answers["join"]:
        node |= {"join": answers["join"], "listen": answers["listen"]}
        if answers["minutes"]:
            raise SettingsError(
                "--minutes is for the party that writes run.toml; with --join the run's length is given"
            )
    elif _name(answers) not in (peers := parse_peers("\n".join(_peers(answers)), "--peer")).names:
        raise SettingsError(f"--peer names {', '.join(peers.names)}, but not this node, {_name(answers)}")
    if answers["insecure"]:
        node["insecure"] = 1 if _on_this_machine(answers) else 2
    NodeSettings(**node)
    return {name: value for name, value in node.items() if value}


def _files(answers: Mapping[str, Any], node: Mapping[str, Any], chosen: Chosen | None) -> Iterator[tuple[str, str]]:
    """Each file's name and text."""
    if not answers["join"]:
        length = chosen.settings if chosen else {}
        exchange = PRESETS[answers["preset"]].changes(replace(RunSettings(), **length)) if answers["preset"] else {}
        yield "run.toml", template(RunSettings, length | exchange, chosen.why if chosen else {})
        yield "peers.txt", PEERS_HEAD + "".join(f"{line}\n" for line in _peers(answers))
    yield "node.toml", template(NodeSettings, node)


def _choose(answers: Mapping[str, Any], node: Mapping[str, Any]) -> Chosen:
    """Try a few steps, and choose a length. Raises what a start would for this model and these data."""
    run, settings = RunSettings(), NodeSettings(**node)
    set_before_torch(settings.threads)
    with work() as doing:
        doing.stage("importing torch")
        from deca_node.numerics.forecast.shapes import local_folder
        from deca_node.numerics.pace import try_pace

        local_folder(node["model"])
        settle_memory()
        pace = try_pace(trainer_options(run, settings), doing.stage)
    here = sum(is_loopback(peer.host) for peer in parse_peers("\n".join(_peers(answers)), "--peer")) or 1
    pass_steps = max((1.0 - settings.holdout) * pace.sequences / run.batch_size, 1.0)
    together = EXCHANGED * here * pace.step_seconds
    length = fitting_length(60.0 * answers["minutes"], together, pace.blocks, pass_steps)
    return Chosen(answers["minutes"], length, pace, here)


# --- what was found, and what to do next ----------------------------------------------------------------


def _look_at(answers: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about model, data and GPU. Nothing here imports torch, and nothing is fetched."""
    if answers["model"]:
        yield f"model: {_model(answers['model'])}"
    yield f"data: {_data(Path(answers['data']).expanduser())}"
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    yield f"GPU: {gpus} of NVIDIA" if gpus else "GPU: none of NVIDIA was found, so the node trains on the CPU"


def _model(source: str) -> str:
    from deca_node.protocol.errors import ModelError
    from deca_node.protocol.planning.units import bytes_text
    from deca_node.storage.model_files import read_headers

    folder = Path(source).expanduser()
    if not folder.exists() and source.startswith((".", "/", "~")):
        return f"warning: there is no folder {source} yet"
    if not folder.exists():
        return f"{source} is not a folder here, so it is taken as the id of a model on the hub"
    try:
        tensors = read_headers(folder).values()
    except ModelError as error:
        return f"warning: {error}"
    parameters, nbytes = (sum(getattr(tensor, fact) for tensor in tensors) for fact in ("elements", "nbytes"))
    return f"{parameters:,} parameters, {bytes_text(nbytes)}"


def _data(path: Path) -> str:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    if not files:
        return f"warning: there is no data at {path} yet"
    from deca_node.protocol.planning.units import bytes_text

    return f"{len(files)} file{'s' * (len(files) > 1)}, {bytes_text(sum(each.stat().st_size for each in files))}"


def _on_the_same_files(answers: Mapping[str, Any]) -> Iterator[str]:
    """The start of each other node of this machine: the same files, another name and other data."""
    for peer in parse_peers("\n".join(_peers(answers)), "--peer"):
        if peer.name and peer.name != _name(answers):
            yield f"deca-node start --name {peer.name} --data {peer.name}.jsonl"


def _next_steps(answers: Mapping[str, Any], into: Path, chosen: Chosen | None) -> str:
    """The commands that come next, one a line."""
    lines = []
    if chosen:
        step = EXCHANGED * chosen.nodes * chosen.pace.step_seconds
        lines.append(f"deca-node plan --step-seconds {step:.2g}   # what it will cost")
    if not answers["insecure"]:
        lines.append("deca-node cert --help      # each node needs a certificate")
    lines.append("deca-node doctor           # checks whether a start would work")
    join = f"join {answers['join']}" if answers["join"] else "start"
    lines.append(f"deca-node {join}")
    if not answers["join"] and _on_this_machine(answers):
        lines += [f"{second}   # in a terminal of its own" for second in _on_the_same_files(answers)]
    if into != Path():
        lines.insert(0, f"cd {into}")
    others = "\nEvery other party needs the same run.toml and peers.txt, and a node.toml of its own."
    return "\n".join(["Next:", *(f"  {line}" for line in lines)]) + ("" if answers["join"] else others)
