"""``deca-node push``: the tuned model to the Hugging Face hub, with a model card written from the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.views.text import size_text
from deca_node.protocol.errors import DecaError, StorageError
from deca_node.storage.durable import write_file
from deca_node.storage.folder import FINAL, ORIGIN

CARD, README = "model_card.md", "README.md"


@click.command(
    epilog="""\b
Examples:
  Write the card and list the files, without a network:
    deca-node push wards/notes-0.5b --dry-run
  Edit deca-data/north/model_card.md, then send it with the model, for yourself or your organisation alone:
    deca-node push wards/notes-0.5b --card deca-data/north/model_card.md
  For everybody:
    deca-node push wards/notes-0.5b --public --license apache-2.0 --base-model Qwen/Qwen2.5-0.5B

Log in with `hf auth login`, or set HF_TOKEN.
"""
)
@click.argument("repo", metavar="OWNER/NAME")
@dir_option
@click.option("--public", is_flag=True, help="Make a new repository public.  [default: private]")
@click.option("--base-model", help="Hub id of the start model, for the card.  [default: as noted in the node's folder]")
@click.option("--license", "license_", default="", help="The model's license, for the card, as in apache-2.0.")
@click.option("--card", type=click.Path(path_type=Path), help="Send this file as the card.")
@click.option("--message", default="Tuned with deca-node", show_default=True, help="Message of the commit.")
@click.option(
    "--dry-run", is_flag=True, help="Write the card into the node's folder, list the files, and send nothing."
)
@json_option
@debug_option
def push(repo: str, directory: Path | None, dry_run: bool, as_json: bool, **flags: Any) -> None:
    """Send the tuned model to the Hugging Face hub as OWNER/NAME, in one commit.

    The model card says what was tuned, by how many parties, in how many steps, with which settings and losses, and
    whether gradients were private. It names no party, no address and no path. An existing repository stays as public or
    private as it is.
    """
    folder = find_directory(directory)
    if not (folder / FINAL).is_dir():
        raise StorageError(f"the run in {folder} is not complete, so there is no tuned model to push; wait for its end")
    card = _card(folder, repo, flags)
    files = sorted(path for path in (folder / FINAL).iterdir() if path.is_file() and path.name not in (ORIGIN, README))
    if dry_run:
        write_file(folder / CARD, [card])
        facts = {"card": str(folder / CARD), "files": {path.name: path.stat().st_size for path in files}}
        lines = [f"{path.name}  {size_text(path.stat().st_size)}" for path in files]
        words = "\n".join([f"wrote {folder / CARD}; this would be sent to {repo} with it:", *lines])
    else:
        facts = {"url": _send(repo, card, files, flags)}
        words = f"The tuned model is at {facts['url']}."
    click.echo(json.dumps(facts) if as_json else words)


def _card(folder: Path, repo: str, flags: dict[str, Any]) -> bytes:
    if path := flags["card"]:
        try:
            return bytes(path.read_bytes())
        except OSError as error:
            raise StorageError(f"the card {path} cannot be read: {error.strerror}") from None
    from deca_node.lab.report.model_card import facts_of, model_card

    facts = facts_of(folder)
    text = model_card(repo.rpartition("/")[2], facts, flags["base_model"] or facts.hub_model, flags["license_"])
    return text.encode()


def _send(repo: str, card: bytes, files: Sequence[Path], flags: dict[str, Any]) -> str:
    """Make the repository where there is none, and commit everything at once; returns its address."""
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(path.name, str(path)) for path in files]
    operations.append(CommitOperationAdd(README, card))
    try:
        api = HfApi(library_name="deca-node")
        url = api.create_repo(repo, private=not flags["public"], exist_ok=True)
        api.create_commit(repo, operations, commit_message=flags["message"])
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors, and names it refuses are ValueErrors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DecaError(f"{repo} cannot be pushed: {reason}; log in with `hf auth login`, or set HF_TOKEN") from error
    return str(url)
