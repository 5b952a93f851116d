"""From settings to an exit code: the folder is locked, logging begins, and the daemon lives in it."""

import asyncio
import json
from pathlib import Path

import uvloop

from deca_node.daemon.daemon import Daemon
from deca_node.daemon.logs import log, set_up_logging
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.settings.sources import Loaded, as_document
from deca_node.daemon.trainer.memory import settle_memory
from deca_node.daemon.trainer.priority import answer_promptly
from deca_node.storage.durable import write_file
from deca_node.storage.folder import SETTINGS, finished, node_directory


def run_node(loaded: Loaded, own: OwnAddress, security: Security) -> int:
    """Run one node in the foreground until it has finished, was stopped or failed; returns the exit code.

    Raises DecaError for what is found before the node takes part in anything.
    """
    settle_memory()
    answer_promptly()
    set_up_logging(loaded.node.log_level, loaded.node.log_format, own.name)
    with (
        node_directory(Path(loaded.node.dir)) as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        if finished(directory, loaded.run) and loaded.node.after_run == "exit":
            log.info("the run is complete; the tuned model is in %s", directory / "final")
            return 0
        _keep_settings(directory, loaded)
        return runner.run(_life(loaded, own, security, directory))


def _keep_settings(directory: Path, loaded: Loaded) -> None:
    """For people and for `deca-node debug`; a disk that is full keeps no node from starting."""
    try:
        write_file(directory / SETTINGS, [(json.dumps(as_document(loaded), indent=1) + "\n").encode()])
    except OSError as problem:
        log.warning("the settings are not written down in %s: %s", directory, problem.strerror)


async def _life(loaded: Loaded, own: OwnAddress, security: Security, directory: Path) -> int:
    # The daemon makes queues and locks that belong to a running loop.
    return await Daemon(loaded.run, loaded.node, own, security, directory).life()
