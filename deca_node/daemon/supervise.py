"""From settings to an exit code: prepare the process, lock the folder, begin the log, run the daemon."""

import asyncio
import json
from pathlib import Path

import uvloop

from deca_node.daemon.daemon import Daemon
from deca_node.daemon.logs import log, set_up_logging
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.own_address import OwnAddress
from deca_node.daemon.settings.sources import Loaded, as_document
from deca_node.daemon.status.log_file import log_kept
from deca_node.process.memory import settle_memory
from deca_node.process.priority import answer_promptly
from deca_node.storage.durable import write_file
from deca_node.storage.folder import FINAL, SETTINGS, finished, node_directory


def run_node(loaded: Loaded, own: OwnAddress, security: Security) -> int:
    """Run one node in the foreground until its run is complete, it is stopped, or it fails; returns the exit code.

    Raises DecaError for problems that are found before the node takes part in the run.
    """
    settle_memory()
    answer_promptly()
    set_up_logging(loaded.node.log_level, loaded.node.log_format, own.name)
    with node_directory(Path(loaded.node.dir)) as directory, log_kept(directory, loaded.node.log_file):
        if finished(directory, loaded.run) and loaded.node.after_run == "exit":
            log.info("the run is complete; the tuned model is in %s", directory / FINAL)
            _say_how_to_train_on(directory)
            return 0
        keep_settings(directory, loaded)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            exit_code = runner.run(_life(loaded, own, security, directory))
        if exit_code == 0 and (directory / FINAL).exists():
            _say_how_to_train_on(directory)
        return exit_code


def _say_how_to_train_on(directory: Path) -> None:
    """A run is not prolonged: its settings are agreed. A further run starts from the tuned model, in a new folder."""
    further = f"deca-node start --model {directory / FINAL} --dir {directory}-2"
    log.info("to train on, begin a new run from the tuned model with all parties: %s, and your other flags", further)


def keep_settings(directory: Path, loaded: Loaded) -> None:
    """Write the settings down for people and for `deca-node debug`. A full disk does not keep a node from starting."""
    try:
        write_file(directory / SETTINGS, [(json.dumps(as_document(loaded), indent=1) + "\n").encode()])
    except OSError as problem:
        log.warning("the settings are not written down in %s: %s", directory, problem.strerror)


async def _life(loaded: Loaded, own: OwnAddress, security: Security, directory: Path) -> int:
    # A coroutine, because the daemon makes queues and locks that belong to the running loop.
    return await Daemon(loaded.run, loaded.node, own, security, directory).life()
