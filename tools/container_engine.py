"""A container engine for the image test: the machine's own, or one that is made for the test.

An engine is made in a folder, from Debian 13's docker.io as an unpacked system, and from base images of Debian 12's
packages under the names in the Dockerfile. So no image is pulled from a registry. The engine runs in its own mount
namespace. To build, it uses the machine's network, without a bridge and without firewall rules. To run containers, it
has its own network namespace. This needs root, Debian's package mmdebstrap, and a kernel with overlayfs, veth, bridge
and nftables.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ENGINE_VERSION_MIN = 26
"""The first version with ``volume.subpath`` in compose files."""

PYTHON_SLIM, PYTHON_FULL = "python:3.11.14-slim-bookworm", "python:3.11.14-bookworm"
UNSIGNED = ['--aptopt=Acquire::Check-Valid-Until "false"']
ENGINE_PACKAGES = "docker.io,docker-cli,docker-buildx,docker-compose,iptables,iproute2,ca-certificates"
START_SECONDS = 60

ENTER = """
set -eu
engine=$1 repository=$2 work=$3; shift 3
mount --bind "$engine" "$engine"
for tree in proc sys dev; do mount --rbind "/$tree" "$engine/$tree"; done
mount -t tmpfs tmpfs "$engine/run"
mkdir -p "$engine/repository" "$engine/scratch"
mount --bind "$repository" "$engine/repository"
mount --bind "$work" "$engine/scratch"
cd "$engine"
pivot_root . mnt
umount -l /mnt
ip link set lo up
exec dockerd --data-root /scratch/data --exec-root /run/docker \\
    --host unix:///run/docker.sock --pidfile /run/dockerd.pid "$@"
"""


class EngineError(Exception):
    """The engine could not be made, started or used. The message is a sentence for the user."""


class Engine:
    """The machine's own engine, which runs commands as they are."""

    def __init__(self, repository: Path, work: Path) -> None:
        self.repository, self.work = repository, work
        """The repository and the working folder, by their paths in the engine."""

    prefix: Sequence[str] = ()

    def run(self, *command: str, check: bool = True, log: Path | None = None) -> str:
        """Run a command in the engine, and return its output. Raises EngineError with the end of it."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if log is not None:
            log.write_text(said)
        if check and done.returncode:
            raise EngineError(f"`{' '.join(command)}` exited with {done.returncode}:\n{said[-3000:]}")
        return done.stdout

    def for_building(self) -> None:
        """Prepare for building images."""

    def for_running(self) -> None:
        """Prepare for running containers."""

    def build_flags(self) -> list[str]:
        """Further arguments of a build."""
        return []

    def close(self) -> None:
        """End all processes that were started."""


class MadeEngine(Engine):
    """An engine in a folder, from Debian's packages."""

    def __init__(self, repository: Path, work: Path) -> None:
        super().__init__(Path("/repository"), Path("/scratch"))
        self._sources = (repository, work)
        self._system = work / "engine"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._make()

    def _make(self) -> None:
        if os.geteuid() != 0:
            raise EngineError("there is no container engine, and making one needs root")
        if shutil.which("mmdebstrap") is None:
            _call("apt-get", "install", "--yes", "--no-install-recommends", "mmdebstrap")
        if not (self._system / "usr" / "sbin" / "dockerd").exists():
            _call(
                "mmdebstrap",
                "-q",
                "--variant=minbase",
                *UNSIGNED,
                f"--include={ENGINE_PACKAGES}",
                "trixie",
                str(self._system),
            )

    def for_building(self) -> None:
        self._start(
            [], ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        )
        self._make_bases()

    def for_running(self) -> None:
        self._start(["-n"], [])

    def build_flags(self) -> list[str]:
        return ["--network", "host"]

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait()
            self._daemon = None

    def _start(self, namespaces: Sequence[str], flags: Sequence[str]) -> None:
        self.close()
        repository, work = self._sources
        (work / "data").mkdir(exist_ok=True)
        script = work / "enter"
        script.write_text(ENTER)
        command = ["unshare", "-m", *namespaces, "--propagation", "private", "sh", str(script)]
        with (work / "engine.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [*command, str(self._system), str(repository), str(work), *flags],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.prefix = ("nsenter", "-t", str(self._daemon.pid), "-m", "-n", "--")
        end = time.monotonic() + START_SECONDS
        while subprocess.run([*self.prefix, "docker", "version"], capture_output=True, check=False).returncode:
            if time.monotonic() > end or self._daemon.poll() is not None:
                raise EngineError(f"the engine did not start: {(work / 'engine.log').read_text()[-2000:]}")
            time.sleep(0.5)

    def _make_bases(self) -> None:
        if self.run("docker", "images", "--quiet", PYTHON_FULL):
            return
        tar = self._sources[1] / "slim.tar"
        if not tar.exists():
            link = 'ln -s ../../bin/python3 "$1/usr/local/bin/python3"; '
            link += 'cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"'
            packages = "--include=python3,ca-certificates,netbase,tzdata"
            _call(
                "mmdebstrap",
                "-q",
                "--variant=minbase",
                *UNSIGNED,
                packages,
                f"--customize-hook={link}",
                "bookworm",
                str(tar),
            )
        environment = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
        self.run("docker", "import", "--change", f"ENV {environment}", str(self.work / "slim.tar"), PYTHON_SLIM)
        self.image(
            PYTHON_FULL,
            "RUN apt-get update && apt-get install -y --no-install-recommends build-essential python3-dev python3-venv",
        )

    def image(self, name: str, *lines: str) -> None:
        """Make an image from lines of a Dockerfile, on the slim base, unless it exists."""
        if self.run("docker", "images", "--quiet", name):
            return
        folder = self._sources[1] / "bases" / name.replace("/", "-").replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text("\n".join((f"FROM {PYTHON_SLIM}", *lines, "")))
        inside = self.work / folder.relative_to(self._sources[1])
        self.run("docker", "build", *self.build_flags(), "--tag", name, str(inside))


def find_engine(repository: Path, work: Path) -> Engine:
    """The machine's engine if it answers and is new enough, else one that is made. Raises EngineError."""
    return installed_engine(repository, work) or MadeEngine(repository, work)


def installed_engine(repository: Path, work: Path) -> Engine | None:
    """The machine's engine, if it answers, is new enough and has compose."""
    asked = ["docker", "version", "--format", "{{json .Server}}"]
    if shutil.which("docker") is None:
        return None
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode or int(json.loads(done.stdout)["Version"].split(".")[0]) < ENGINE_VERSION_MIN:
        return None
    compose = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return Engine(repository, work) if compose.returncode == 0 else None


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"`{' '.join(command)}` exited with {done.returncode}:\n{done.stderr[-2000:]}")
