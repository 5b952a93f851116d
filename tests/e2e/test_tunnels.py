"""Two machines that reach each other through SSH only, with the commands of docs/TUNNELS.md."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.links.wire import Line, NotPermittedError, Wire
from tests.e2e.faults import all_see, one_view, wait_for_steps
from tests.e2e.testbed import Testbed, largest_difference, until
from tests.patience import PATIENCE_SECONDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "TUNNELS.md").read_text()
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
PORT = 2222
NAMES = ("north", "south")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SSHD is None or not shutil.which("ssh"), reason="OpenSSH's server is not installed"),
]


class BehindNat(Wire):
    """Machine 0 is the relay. The others reach it, and do not reach each other."""

    def _arrival(self, source: Line, to: Line, nbytes: int, now: float) -> float | None:
        if self.lines[0] not in (source, to):
            return None
        return super()._arrival(source, to, nbytes, now)


class Machines:
    """The relay with its SSH server, and a machine for each node."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        self.folder = folder
        self._wire = wire
        self._running: list[subprocess.Popen[bytes]] = []

    def within(self, name: str) -> tuple[str, ...]:
        line = self._wire.lines[1 + NAMES.index(name)] if name in NAMES else self._wire.lines[0]
        return ("ip", "netns", "exec", line.namespace)

    def run(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}-ssh.log").open("ab") as log:
            process = subprocess.Popen([*self.within(name), *command], stdout=log, stderr=log)
        self._running.append(process)
        return process

    def relay(self) -> None:
        """Start the SSH server, with a key for each machine that may do what the page says."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "host"], check=True)
        allowed = []
        for name in NAMES:
            key = self.folder / f"{name}.key"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            allowed.append(f"{self.permission(name)} {key.with_suffix('.key.pub').read_text()}")
        (self.folder / "authorized").write_text("".join(allowed))
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {PORT}\nHostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/authorized\n"
            "PidFile none\nStrictModes no\nUsePAM no\n"
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.run("relay", str(SSHD), "-D", "-e", "-f", str(config))
        log = self.folder / "relay-ssh.log"
        until(lambda: "Server listening" in log.read_text(), "the SSH server")

    @staticmethod
    def permission(name: str) -> str:
        """The restriction of the page's example, with the ports of this node."""
        found = re.search(r"^restrict,.*(?= ssh-ed25519)", PAGE, re.MULTILINE)
        assert found is not None
        other = found[0].replace("7001", "own").replace("7002", "7001").replace("own", "7002")
        return found[0] if name == "north" else other

    def tunnel(self, name: str) -> "subprocess.Popen[bytes]":
        """The page's first command for this machine."""
        found = re.search(rf"^{name}\$ (ssh (?:.*\\\n)*.* relay)$", PAGE, re.MULTILINE)
        assert found is not None
        ssh, *words, relay = shlex.split(found[1].replace("\\\n", " "))
        config = self.folder / f"{name}.ssh_config"
        config.write_text(
            f"Host {relay}\nHostName {self._wire.lines[0].address}\nPort {PORT}\nUser root\n"
            f"IdentityFile {self.folder}/{name}.key\nIdentitiesOnly yes\nBatchMode yes\n"
            "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"
        )
        return self.run(name, ssh, "-F", str(config), *words, relay)

    def end(self) -> None:
        for process in self._running:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    try:
        with BehindNat(1 + len(NAMES), bits_per_second=1e9, seconds_one_way=0.005) as wire:
            made = Machines(tmp_path, wire)
            yield made
            made.end()
    except NotPermittedError as problem:
        pytest.skip(str(problem))


def test_two_nodes_behind_nat_train_through_a_relay(machines: Machines, testbed: Testbed) -> None:
    found = re.search(r"^# peers.txt\n((?:.+@.+\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    (testbed.folder / "peers.txt").write_text(found[1])
    machines.relay()
    tunnels = {name: machines.tunnel(name) for name in NAMES}
    flags = {"rounds": 6, "inner_steps": 40, "network": "local", "open_timeout_seconds": 10}
    nodes = [testbed.start(name, within=machines.within(name), name=None, **flags) for name in NAMES]
    until(lambda: one_view(nodes), "both nodes to meet")
    wait_for_steps(nodes, 10, "both to train")

    tunnels["south"].kill()
    until(lambda: all_see(nodes[:1], "south", "dead"), "the broken tunnel to be noticed")
    wait_for_steps(nodes, 5, "both to train alone")
    assert tunnels["south"].wait(PATIENCE_SECONDS)
    machines.tunnel("south")
    until(lambda: one_view(nodes), "both nodes to meet again")
    testbed.wait()
    assert largest_difference(nodes) < 1e-3
