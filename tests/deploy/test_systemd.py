"""The systemd unit: what systemd itself says about it, and the lines that a node depends on."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deca_node.cli.verbs.start import start
from deca_node.protocol import errors
from tests.deploy.manifests import ROOT

UNIT = ROOT / "deploy" / "systemd" / "deca-node@.service"
ANALYZE = shutil.which("systemd-analyze")

LINES = {
    "User": "deca",
    "Restart": "on-failure",
    "KillMode": "mixed",
    "KillSignal": "SIGTERM",
    "TimeoutStopSec": "300",
    "StateDirectory": "deca/%i",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
    "LockPersonality": "yes",
    "UMask": "0077",
}

EXPOSURE_MAX = 2.0
"""Of 10, as systemd-analyze counts; a unit without sandboxing has 9.6."""


def settings(text: str) -> dict[str, str]:
    """Each setting's last value."""
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def lacking(text: str) -> set[str]:
    there = settings(text)
    return {name for name, value in LINES.items() if there.get(name) != value}


def test_nothing_is_lacking() -> None:
    assert lacking(UNIT.read_text()) == set()


@pytest.mark.parametrize("name", LINES)
def test_a_missing_line_is_noticed(name: str) -> None:
    assert lacking(re.sub(rf"^{name}=.*\n", "", UNIT.read_text(), flags=re.MULTILINE)) == {name}


def test_flags_exist() -> None:
    known = {name for option in start.params for name in option.opts}
    assert set(re.findall(r"--[a-z-]+", settings(UNIT.read_text())["ExecStart"])) <= known


def test_what_a_person_must_put_right_is_not_tried_again() -> None:
    for_people = (errors.SettingsError, errors.PeersError, errors.ModelError, errors.DataError, errors.MismatchError)
    given_up = {int(code) for code in settings(UNIT.read_text())["RestartPreventExitStatus"].split()}
    assert given_up == {2, *(kind.exit_code for kind in for_people)}


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_understands_it(tmp_path: Path) -> None:
    """Every line; that the program itself is not installed here is no fault of the unit."""
    unit = tmp_path / "deca-node@north.service"
    unit.write_text(UNIT.read_text().replace("/opt/deca/bin/deca-node", "/bin/true"))
    done = subprocess.run([str(ANALYZE), "verify", str(unit)], check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_it_is_well_confined(tmp_path: Path) -> None:
    unit = tmp_path / "deca-node@north.service"
    unit.write_text(UNIT.read_text())
    done = subprocess.run(
        [str(ANALYZE), "security", "--offline=yes", "--no-pager", str(unit)],
        check=False,
        capture_output=True,
        text=True,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if exposure is None:
        pytest.skip(f"this systemd cannot judge a unit that is not installed: {done.stderr.strip()}")
    assert float(exposure[1]) <= EXPOSURE_MAX


def test_the_installation_takes_the_build_of_torch_that_it_names() -> None:
    """A plain `pip install` takes the CUDA build on Linux, which is several gigabytes larger."""
    script = (ROOT / "docker" / "install.sh").read_text()
    steps = re.findall(r"docker/install\.sh ([a-z-]+) /opt/deca", UNIT.read_text())
    assert steps == ["tools", "torch-cpu", "dependencies", "project", "codec"]
    assert all(f"\n{step})\n" in script for step in [*steps, "torch-cuda"])


def test_the_installation_takes_all_steps_of_the_image() -> None:
    known = re.findall(r"^([a-z-]+)\)$", (ROOT / "docker" / "install.sh").read_text(), flags=re.MULTILINE)
    steps = re.findall(r"docker/install\.sh ([a-z-]+) /opt/deca", UNIT.read_text())
    assert sorted([*steps, "torch-cuda"]) == sorted(known)


def test_documented_commands_as_another_user_have_a_path() -> None:
    """The program's folder is not among those in which sudo looks."""
    commands = re.findall(r"sudo -u deca (\S+)", (ROOT / "docs" / "DEPLOYMENT.md").read_text())
    assert set(commands) == {settings(UNIT.read_text())["ExecStart"].split()[0]}
