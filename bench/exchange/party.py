"""The child's side of a measurement. It follows commands, and times only the exchange.

Parties run in interpreters of different environments, so this module needs only the standard library. The parent leads
all parties through the same commands, one JSON line each way over a Unix socket::

    parent                              party
              <- {"ready": {facts}}
    prepare   -> ... <- {}              all that a user would wait for only once
    exchange  -> ... <- {"began", "ended"}
    check     -> ... <- {"error"}       the error of the numbers that arrived

``began`` and ``ended`` are CLOCK_MONOTONIC, which all processes of one machine share.
"""

import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """The job of a party. ``peers`` has an address (host, port) per party, ``contents`` a file. ``certificates`` is a
    folder of :mod:`bench.exchange.trust`, or empty."""

    socket: str
    party: int
    neighbours: tuple[int, ...]
    peers: tuple[tuple[str, int], ...]
    contents: tuple[str, ...]
    elements: int
    folder: str
    option: str
    certificates: str = ""

    @classmethod
    def read(cls, text: str) -> "Job":
        """A job from its JSON."""
        facts = json.loads(text)
        facts["neighbours"] = tuple(facts["neighbours"])
        facts["contents"] = tuple(facts["contents"])
        facts["peers"] = tuple((host, port) for host, port in facts["peers"])
        return cls(**facts)


class Party(Protocol):
    """One end of an exchange."""

    facts: dict[str, str]
    """Facts on which the figures depend: versions, algorithms."""

    def prepare(self) -> None:
        """Prepare the next exchange. This is not timed."""

    def exchange(self) -> None:
        """Send our content to every neighbour, and return when theirs has arrived as float32."""

    def check(self) -> float:
        """Relative error of the numbers that arrived: RMS(arrived - sent) / RMS(sent)."""

    def close(self) -> None:
        """Free sockets, threads and processes."""


def perform(job: Job, make: Callable[[Job], Party]) -> None:
    """Be a party until the parent closes the connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(job.socket)
        stream = connection.makefile("rw", encoding="utf-8", newline="\n")
        party = make(job)
        try:
            _say(stream, {"ready": party.facts})
            for line in stream:
                _say(stream, _obey(party, line.strip()))
        finally:
            party.close()


def main(make: Callable[[Job], Party]) -> None:
    """The same, with the job from the file that the command line names."""
    perform(Job.read(Path(sys.argv[1]).read_text(encoding="utf-8")), make)


def _obey(party: Party, word: str) -> dict[str, float]:
    if word == "exchange":
        began = time.monotonic()
        party.exchange()
        return {"began": began, "ended": time.monotonic()}
    if word == "check":
        return {"error": party.check()}
    party.prepare()
    return {}


def _say(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()
