"""Checks of this machine: the node's folder, its ports, the environment, the disk and the clock."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis import preflight
from deca_node.daemon.diagnosis.findings import Finding, Verdict
from deca_node.daemon.settings.address import Address
from deca_node.protocol.planning.disk import folder_bytes
from deca_node.storage.data_sources import data_sources


def check_folder(known: Known) -> Iterator[Finding]:
    """Look at what the node's folder holds, and whether a node runs in it."""
    found = preflight.check_folder(Path(known.settings.node.dir), known.settings.run)
    known.node_runs = "process" in found.facts
    yield found


def check_listen(known: Known) -> Iterator[Finding]:
    """Try to listen for peers."""
    assert known.own is not None
    yield _port(known, "listen", known.own.listen)


def check_http(known: Known) -> Iterator[Finding]:
    """Try to listen for HTTP, where it is on."""
    if address := known.settings.node.http_address:
        yield _port(known, "http", address)


def _port(known: Known, name: str, address: Address) -> Finding:
    """Where this very node runs already, its ports are taken, and that is as it should be."""
    found = preflight.check_port(name, address, f"--{name}")
    if found.verdict is Verdict.FAILED and known.node_runs:
        do = "nothing, if the port belongs to the node that runs in this folder"
        return dataclasses.replace(found, verdict=Verdict.WARNING, do=do)
    return found


def check_environment(_: Known) -> Iterator[Finding]:
    """Name the variables of the environment that redirect other programs."""
    yield from preflight.check_environment(os.environ)


def check_disk(known: Known) -> Iterator[Finding]:
    """Compare what the run will write with the free space."""
    assert known.case is not None
    needed = folder_bytes(known.case, sum(_bytes_at(source.place) for source in data_sources(known.settings.node.data)))
    yield preflight.check_disk(Path(known.settings.node.dir or "deca-data"), needed)


def _bytes_at(place: str) -> int:
    """The size of a file, or of all files in a folder; 0 for what is not on this machine."""
    path = Path(place).expanduser()
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else ()
    return sum(file.stat().st_size for file in files if file.is_file())


def check_clock(known: Known) -> Iterator[Finding]:
    """Compare this clock with the dates of files and with the peers' clocks."""
    node = known.loaded.node if known.loaded else None
    named = [node.peers, f"{node.model}/config.json"] if node else []
    named += [source.place for source in data_sources(node.data)] if node else []
    files = [Path(__file__), *(Path(name).expanduser() for name in named)]
    yield preflight.check_clock(time.time(), files, known.clock_offsets)
