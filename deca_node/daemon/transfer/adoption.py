"""Takes over a run from a member: its settings, and the start model where this machine has none.

Both are kept in the node's folder, so that the next start needs no member::

    DIR/run.toml    the run's settings
    DIR/model/      the start model
"""

import asyncio
import contextlib
import dataclasses
import shutil
from pathlib import Path

import grpc.aio

from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.settings.sources import Loaded, load_settings
from deca_node.daemon.transfer.fetcher import Fetcher
from deca_node.daemon.transfer.offers import Offer, TransferError
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError, StorageError
from deca_node.protocol.options import Note
from deca_node.storage.durable import write_file
from deca_node.storage.folder import JOINED_RUN, unusable

MODEL_FOLDER = "model"
ATTEMPTS = 10
PAUSE_SECONDS = 3.0


def adopt_run(loaded: Loaded, own: OwnAddress, security: Security, note: Note) -> Loaded:
    """``loaded`` with the settings and the start model of the run, from the members in ``join``.

    Run settings that the user has chosen must equal the members'. A model that the user has named is not replaced.
    ``note`` takes sentences about the progress. Raises TransferError where no member answers, SettingsError where the
    settings differ or are malformed, and StorageError where files cannot be written.
    """
    directory = Path(loaded.node.dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise unusable(directory, problem) from None
    return asyncio.run(_Adoption(loaded, own, security, note, directory).adopt())


class _Adoption:
    def __init__(self, loaded: Loaded, own: OwnAddress, security: Security, note: Note, directory: Path) -> None:
        endpoint = Endpoint(own.listen, security.credentials, security.verify)

        def channel(_seed: str, address: Address) -> grpc.aio.Channel:
            # The name of the member there is not known yet. TLS makes sure that it belongs to the federation.
            return endpoint.channel("", address)

        self._loaded = loaded
        self._directory = directory
        self._fetcher = Fetcher(directory, channel, note, name=own.name)
        self._members = {str(seed): seed for seed in loaded.node.seeds}

    async def adopt(self) -> Loaded:
        """Get the settings first: the request for the model needs the agreement."""
        run_file, model = self._directory / JOINED_RUN, self._directory / MODEL_FOLDER
        offer = None if run_file.exists() else await self._offer()
        run = self._settings(run_file, offer)
        if self._loaded.node.model:
            return dataclasses.replace(self._loaded, run=run)
        if not model.exists():
            offer = offer or await self._offer()
            room = shutil.disk_usage(self._directory).free
            await self._fetcher.fetch_start(self._members, model, offer.agreement, bytes_max=room)
        return dataclasses.replace(self._loaded, run=run, node=dataclasses.replace(self._loaded.node, model=str(model)))

    def _settings(self, run_file: Path, offer: Offer | None) -> RunSettings:
        """The run's settings, from the members or from the file that an earlier start kept. Settings that are refused
        are not kept."""
        if offer is None:
            run = load_settings({}, {}, run_file, None).run
            self._refuse_other_choices(run)
            return run
        aside = run_file.with_name(run_file.name + ".offered")
        try:
            aside.write_text(offer.settings, encoding="utf-8")
            run = load_settings({}, {}, aside, None).run
            self._refuse_other_choices(run)
            write_file(run_file, [offer.settings.encode()])
        except OSError as problem:
            raise StorageError(f"cannot write {run_file}: {problem.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        return run

    async def _offer(self) -> Offer:
        why = ""
        for _ in range(ATTEMPTS):
            offer, problems = await self._fetcher.describe_first(self._members)
            if offer:
                return offer
            why = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            await asyncio.sleep(PAUSE_SECONDS)
        raise TransferError(
            f"no member gave the run's settings ({why}); check the address, and whether a node runs there"
        )

    def _refuse_other_choices(self, run: RunSettings) -> None:
        for name, source in self._loaded.sources.items():
            if source.where == "default" or not hasattr(run, name):
                continue
            ours, theirs = getattr(self._loaded.run, name), getattr(run, name)
            if ours != theirs:
                raise SettingsError(
                    f"{name} = {ours!r} comes from {source.where}, but the run has {theirs!r}; leave it out"
                )
