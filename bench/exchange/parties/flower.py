"""Flower: a SuperLink, a SuperNode per client, and one round of parameters down and up per exchange.

One of n nodes is the server, and the others are clients. Each message takes Flower's own way: ServerApp, SuperLink,
SuperNode, ClientApp and back, over HTTP on loopback. The library starts a process for each of them. The ServerApp
(``flower_app/server_app.py``) is the party; this module only starts its parts.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from bench.exchange.party import Job

APP = Path(__file__).resolve().parent.parent / "flower_app"
SERVER_UP_SECONDS_MAX = 60.0
RUN_SECONDS_MAX = 600.0

CONFIG = """
[superlink]
default = "here"

[superlink.here]
address = "{host}:{port}"
insecure = true
"""


def main() -> None:
    """Start everything, run the app until the parent closes its connection, and stop everything."""
    path = Path(sys.argv[1])
    job = Job.read(path.read_text(encoding="utf-8"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        run(job, path, started)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def run(job: Job, path: Path, started: list["subprocess.Popen[bytes]"]) -> None:
    """The SuperLink, the SuperNodes and the run."""
    folder = Path(job.folder)
    (host, port), *others = job.peers
    (folder / "config.toml").write_text(CONFIG.format(host=host, port=port), encoding="utf-8")
    environment = os.environ | {
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # The library starts its other programs by name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def start(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        with (folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        started.append(process)
        return process

    start("flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", str(port))
    wait_for(folder / "flower-superlink.log", b"running on")
    for _, (_, own) in zip(job.contents[1:], others, strict=False):
        start("flower-supernode", "--insecure", "--superlink", f"{host}:{port}", "--port", str(own))
    start("flwr", "run", str(APP), "here", "--run-config", f'job="{path}"', "--stream").wait(RUN_SECONDS_MAX)
    with (folder / "flwr.log").open("rb") as log:
        forward(log)


def wait_for(log: Path, words: bytes) -> None:
    """Wait until a program prints these words."""
    deadline = time.monotonic() + SERVER_UP_SECONDS_MAX
    while words not in log.read_bytes():
        assert time.monotonic() < deadline, f"{log.stem} did not start"
        time.sleep(0.1)


def forward(log: IO[bytes]) -> None:
    """Print the log of the run, which the parent shows if it failed."""
    sys.stdout.buffer.write(log.read())


if __name__ == "__main__":
    main()
