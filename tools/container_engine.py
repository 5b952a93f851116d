"""A container engine for the image test: the machine's own, or one that is made for the occasion.

Made are, in a folder: Debian 13's docker.io as an unpacked system, and base images from Debian 12's packages under the
names that the Dockerfile asks for, so that nothing is pulled from a registry of images. The engine runs in a mount
namespace of its own. For builds it uses the machine's network, without a bridge and without firewall rules; for running
it gets a network namespace of its own. It takes root, Debian's package mmdebstrap, and a kernel with overlayfs, veth,
bridge and nftables.
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
"""The first with ``volume.subpath`` in compose files."""

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
mkdir -p "$engine/repository" "$engine/work"
mount --bind "$repository" "$engine/repository"
mount --bind "$work" "$engine/work"
cd "$engine"
pivot_root . mnt
umount -l /mnt
ip link set lo up
exec dockerd --data-root /work/data --exec-root /run/docker \\
    --host unix:///run/docker.sock --pidfile /run/dockerd.pid "$@"
"""


class EngineError(Exception):
    """The engine could not be made, started or used; a sentence for the person at the terminal."""


class Engine:
    """The machine's own engine: commands run as they are."""

    def __init__(self, repository: Path, work: Path) -> None:
        self.repository, self.work = repository, work
        """Where the engine sees the repository and the working folder."""

    prefix: Sequence[str] = ()

    def run(self, *command: str, check: bool = True, log: Path | None = None) -> str:
        """Run a command where the engine is; returns what it printed. Raises EngineError with the end of it."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if log is not None:
            log.write_text(said)
        if check and done.returncode:
            raise EngineError(f"`{' '.join(command)}` exited with {done.returncode}:\n{said[-3000:]}")
        return done.stdout

    def for_building(self) -> None:
        """From here on images are built."""

    def for_running(self) -> None:
        """From here on containers run."""

    def build_flags(self) -> list[str]:
        """What a build needs beside its own arguments."""
        return []

    def close(self) -> None:
        """End what was started."""


class MadeEngine(Engine):
    """An engine in a folder, from Debian's packages."""

    def __init__(self, repository: Path, work: Path) -> None:
        super().__init__(Path("/repository"), Path("/work"))
        self._sources = (repository, work)
        self._system = work / "engine"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._make()

    def _make(self) -> None:
        if os.geteuid() != 0:
            raise EngineError("no container engine is here, and making one takes root")
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
        """Make an image from lines of a Dockerfile, on the slim base, unless it is there."""
        if self.run("docker", "images", "--quiet", name):
            return
        folder = self._sources[1] / "bases" / name.replace("/", "-").replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text("\n".join((f"FROM {PYTHON_SLIM}", *lines, "")))
        inside = self.work / folder.relative_to(self._sources[1])
        self.run("docker", "build", *self.build_flags(), "--tag", name, str(inside))


def find_engine(repository: Path, work: Path) -> Engine:
    """The machine's engine where it answers and is new enough, else one that is made. Raises EngineError."""
    asked = ["docker", "version", "--format", "{{json .Server}}"]
    if shutil.which("docker"):
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and int(json.loads(done.stdout)["Version"].split(".")[0]) >= ENGINE_VERSION_MIN:
            return Engine(repository, work)
    return MadeEngine(repository, work)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"`{' '.join(command)}` exited with {done.returncode}:\n{done.stderr[-2000:]}")
