"""Taking over a run from a member: its settings, and the start model where this machine has none.

What is taken over is kept in the node's folder, so that the next start needs nobody's help::

    DIR/run.toml    the run's settings
    DIR/model/      the start model
"""

import asyncio
import dataclasses
import logging
import shutil
from pathlib import Path

import grpc.aio

from deca_node.daemon.config import NodeSettings
from deca_node.daemon.donations import Offer, TransferError
from deca_node.daemon.endpoint import Endpoint
from deca_node.daemon.fetcher import Fetcher
from deca_node.daemon.peers import Address, parse_address
from deca_node.daemon.security import Security
from deca_node.daemon.settings_sources import Loaded, load_settings
from deca_node.protocol.errors import SettingsError, StorageError

log = logging.getLogger("deca")

RUN_FILE = "run.toml"
MODEL_FOLDER = "model"
ATTEMPTS = 10
PAUSE_SECONDS = 3.0


def adopt_run(loaded: Loaded, name: str, given: frozenset[str], security: Security, directory: Path) -> Loaded:
    """``loaded`` with the run's settings, and the model, of the members in ``join``, for the node ``name``.

    ``given`` names the run's settings that the user chose: they must be the members' own. Raises TransferError where
    none answers, SettingsError or StorageError.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StorageError(f"cannot use {directory} as this node's folder: {problem.strerror}") from None
    return asyncio.run(_adopt(loaded, name, given, security, directory))


async def _adopt(loaded: Loaded, name: str, given: frozenset[str], security: Security, directory: Path) -> Loaded:
    endpoint = Endpoint(Address("localhost", 0), security.credentials, security.verify)

    def channel(_seed: str, address: Address) -> grpc.aio.Channel:
        # Who listens there is not known yet; TLS makes sure that it is one of the federation.
        return endpoint.channel("", address)

    fetcher = Fetcher(directory, channel, lambda sentence, level="info": log.info("%s", sentence), name=name)
    members = {seed: parse_address(seed) for seed in loaded.node.seeds}
    run_file, model_folder = directory / RUN_FILE, directory / MODEL_FOLDER
    offer = None
    if not run_file.exists():
        offer = await _offer(fetcher, members)
        run_file.write_text(offer.settings, encoding="utf-8")
    adopted = load_settings({}, {}, run_file, None)
    _refuse_other_choices(loaded, adopted, given)
    node = loaded.node
    if not node.model:
        if not model_folder.exists():
            offer = offer or await _offer(fetcher, members)
            room = shutil.disk_usage(directory).free
            await fetcher.fetch_start(members, model_folder, offer.agreement, bytes_max=room)
        node = dataclasses.replace(node, model=str(model_folder))
    return dataclasses.replace(loaded, run=adopted.run, node=node)


async def _offer(fetcher: Fetcher, members: dict[str, Address]) -> Offer:
    why = ""
    for _ in range(ATTEMPTS):
        offers, problems = await fetcher.describe(members)
        if offers:
            return next(iter(offers.values()))
        why = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        await asyncio.sleep(PAUSE_SECONDS)
    raise TransferError(f"no member told about the run ({why}); is the address right, and is the node there up?")


def _refuse_other_choices(loaded: Loaded, adopted: Loaded, given: frozenset[str]) -> None:
    for name in sorted(given):
        ours, theirs = getattr(loaded.run, name), getattr(adopted.run, name)
        if ours != theirs:
            raise SettingsError(
                f"{name} = {ours!r} comes from {loaded.sources[name].where}, but the run has {theirs!r}; leave it out"
            )


def chosen(loaded: Loaded, kind: type = NodeSettings) -> frozenset[str]:
    """The settings of ``kind`` that come from anywhere but the defaults."""
    names = [field.name for field in dataclasses.fields(kind)]
    return frozenset(name for name in names if loaded.sources[name].where != "default")
