"""The testbed of containers: compose files by the specification's own rules, and the Dockerfile by a linter.

No engine runs here. What the image would hold is proven by docker/check_install.sh.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePath
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from deca_node import __version__
from deca_node.cli.verbs.start import start
from deca_node.daemon.security.certificates import TlsFiles, read_material
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.peers_file import read_peers
from tests.deploy.manifests import ROOT
from tests.patience import PATIENCE_SECONDS

DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
TESTBED = DOCKER / "compose.yaml"
OVERLAYS = sorted(set(DOCKER.glob("compose*.yaml")) - {TESTBED})
FILES = [TESTBED, *OVERLAYS]
NODES = ("north", "east", "south", "west")

files = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def services(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())["services"]
    return found


# --- compose -----------------------------------------------------------------------------------------


@files
def test_valid_by_the_specification(file: Path) -> None:
    """Merge keys are YAML's and resolved before; the rest is parsed by a complete model of the specification."""
    compose = PyCompose.from_json(json.dumps(yaml.safe_load(file.read_text())))
    assert set(compose.service_names()) == set(services(file))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("read_onyl", True, "read_onyl"),
        ("init", "perhaps", "expected a boolean"),
        ("depends_on", {"x": {"condition": "some_day"}}, "some_day"),
    ],
)
def test_what_is_invalid_is_refused(key: str, value: Any, complaint: str) -> None:
    wrong = {"services": {"node": {"image": "deca-node", key: value}}}
    with pytest.raises(ValueError, match=complaint):
        PyCompose.from_json(json.dumps(wrong))


def test_overlays_change_what_is_there() -> None:
    """A service without an image of its own is one of the testbed's; a companion shares the network of one."""
    there = set(services(TESTBED))
    for file in OVERLAYS:
        for name, service in services(file).items():
            assert name in there or "image" in service, f"{file.name}: {name}"
            shared = service.get("network_mode", "").removeprefix("service:")
            assert not shared or shared in there


@files
def test_everything_is_confined(file: Path) -> None:
    for name, service in services(file).items():
        if "image" not in service or (file is not TESTBED and name in services(TESTBED)):
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"


@files
def test_images_are_pinned(file: Path) -> None:
    for service in services(file).values():
        image = service.get("image", f"deca-node:{__version__}-cpu")
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", image), image
        assert not image.startswith("deca-node:") or image.startswith(f"deca-node:{__version__}-")


@files
def test_bound_files_exist(file: Path) -> None:
    for name, service in services(file).items():
        for mount in service.get("volumes", ()):
            assert mount["type"] in {"bind", "volume"}
            if mount["type"] == "bind":
                assert (DOCKER / mount["source"]).exists(), name
                assert mount["read_only"] is True
            else:
                assert mount["source"] in yaml.safe_load(file.read_text())["volumes"]


def test_each_node_has_its_own_key_folder_and_data() -> None:
    nodes = {name: services(TESTBED)[name] for name in NODES}
    for name, node in nodes.items():
        mounts = {mount["target"]: mount for mount in node["volumes"]}
        certificates = mounts["/etc/deca/deca-certs"]
        assert certificates["volume"] == {"subpath": name, "nocopy": True}
        assert certificates["read_only"] is True
        assert mounts["/inputs"]["read_only"] is True
        assert mounts["/var/lib/deca"]["source"] == name
        assert node["command"] == ["start", "--name", name, "--data", f"/inputs/data/{name}.jsonl"]
        assert node["depends_on"] == {
            one_shot: {"condition": "service_completed_successfully"} for one_shot in ("certificates", "inputs")
        }
        assert node["user"] == "10001:10001"
        assert node["stop_grace_period"] == "2m"


def test_nodes_find_each_other() -> None:
    """The peers file names the services, on the port where they listen."""
    peers = read_peers(DOCKER / "testbed" / "peers.txt")
    listen = services(TESTBED)["north"]["environment"]["DECA_LISTEN"]
    assert [(peer.name, peer.host) for peer in peers] == [(name, name) for name in NODES]
    assert {f"0.0.0.0:{peer.port}" for peer in peers} == {listen}


def test_settings_exist() -> None:
    known_flags = {name for option in start.params for name in option.opts}
    known = {f"DECA_{name.upper()}" for name in NodeSettings.__dataclass_fields__} | {"DECA_RUN_FILE"}
    for file in FILES:
        for service in services(file).values():
            variables = {name for name in service.get("environment", {}) if name.startswith("DECA_")}
            assert variables <= known
            if service.get("command", [""])[0] == "start":
                assert {word for word in service["command"] if word.startswith("--")} <= known_flags


def test_gpus_for_all_nodes() -> None:
    for name in NODES:
        service = services(DOCKER / "compose.gpu.yaml")[name]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        assert service["environment"] == {"DECA_DEVICE": "cuda"}


def test_trouble_for_all_nodes() -> None:
    """Nothing but the right to shape traffic, and only in the node's own network."""
    companions = services(DOCKER / "compose.chaos.yaml")
    assert sorted(each["network_mode"] for each in companions.values()) == sorted(f"service:{name}" for name in NODES)
    assert {tuple(each["cap_add"]) for each in companions.values()} == {("NET_ADMIN",)}


TC = """#!/bin/sh
echo "tc $*" >> "{log}"
case "$*" in *{missing}*) exit 2 ;; esac
"""


@pytest.mark.parametrize(
    ("missing", "code", "says"),
    [
        ("nothing", 0, "what this node sends is late by 60ms (+-20ms), and 0.5% of it is lost"),
        ("netem", 0, "this kernel has no sch_netem: what this node sends is limited to 20mbit instead"),
        ("replace", 1, "this kernel has neither sch_netem nor sch_tbf: the links stay good"),
    ],
)
def test_a_companion_says_what_it_does_to_the_link(tmp_path: Path, missing: str, code: int, says: str) -> None:
    """Where it can do nothing, it fails, and `up --wait` with it. When it is stopped, the link is good again."""
    companion = services(DOCKER / "compose.chaos.yaml")["chaos-north"]
    log = tmp_path / "log"
    (tmp_path / "tc").write_text(TC.format(log=log, missing=missing))
    (tmp_path / "tc").chmod(0o755)
    given = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in companion["environment"].items()}
    environment = os.environ | given | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [*companion["entrypoint"], companion["command"][0].replace("$$", "$")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == says
        if not code:
            process.terminate()
        assert process.wait(PATIENCE_SECONDS) == code
    assert code or log.read_text().splitlines()[-1] == "tc qdisc del dev eth0 root"


# --- certificates ------------------------------------------------------------------------------------


def test_certificates_are_made_once(tmp_path: Path) -> None:
    """The one-shot service's own script: from nothing to what a node accepts, and the second time nothing changes."""
    import datetime as dt

    (tmp_path / "deca-node").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deca_node "$@"\n')
    (tmp_path / "deca-node").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [
        "sh",
        str(DOCKER / "make_certificates.sh"),
        str(tmp_path / "ca"),
        str(tmp_path / "certs"),
        "testbed.example",
    ]

    def run() -> bytes:
        subprocess.run([*command, "north"], check=True, env=environment, capture_output=True, timeout=PATIENCE_SECONDS)
        own = tmp_path / "certs" / "north"
        material = read_material(
            TlsFiles(own / "north.crt", own / "north.key", own / "ca.crt"), dt.datetime.now(dt.UTC)
        )
        assert material.facts.id.uri == "spiffe://testbed.example/node/north"
        return material.chain

    assert run() == run()


# --- the image ---------------------------------------------------------------------------------------


def hadolint(text: str) -> list[str]:
    """What the linter says about a Dockerfile."""
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(linter), "--no-color", "-"], input=text, check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()


def instructions() -> list[str]:
    """The Dockerfile's instructions, one per line, comments left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def test_the_linter_finds_nothing() -> None:
    assert hadolint(DOCKERFILE.read_text()) == []


def test_the_linter_finds_something() -> None:
    assert hadolint("FROM python:latest\nRUN cd /tmp && sudo pip install torch\n")


@pytest.mark.parametrize(
    "instruction",
    [
        "USER 10001:10001",
        "STOPSIGNAL SIGTERM",
        'ENTRYPOINT ["tini", "--", "deca-node"]',
        'CMD ["start"]',
        "FROM runtime AS cuda",
        "FROM runtime AS cpu",
        "EXPOSE 7000 9640",
    ],
)
def test_the_image_has(instruction: str) -> None:
    assert instruction in instructions()


def test_the_image_asks_the_node_how_it_is() -> None:
    (health,) = [line for line in instructions() if line.startswith("HEALTHCHECK")]
    assert health.endswith('CMD ["deca-node", "status", "--json"]')


def test_bases_are_pinned() -> None:
    bases = {line.split()[1] for line in instructions() if line.startswith("FROM")}
    stages = {line.split()[3] for line in instructions() if line.startswith("FROM")}
    assert bases - stages == {"python:3.11.14-bookworm", "python:3.11.14-slim-bookworm"}


def copied() -> list[str]:
    """The sources of the COPY instructions that read the repository."""
    lines = [line for line in instructions() if line.startswith("COPY") and "--from" not in line]
    return [source for line in lines for source in line.split()[1:-1]]


def test_the_build_sees_what_it_copies_and_no_more() -> None:
    """The exceptions in the ignore file are the sources of the COPY instructions, or folders of them."""
    first, *rest = [
        line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert first == "*"
    admitted = {line[1:] for line in rest if line.startswith("!")}
    assert admitted <= set(copied())
    assert all(any(PurePath(source).is_relative_to(each) for each in admitted) for source in copied())
    assert all(list(ROOT.glob(source)) for source in copied())


def test_a_changed_line_changes_the_last_layer_only() -> None:
    """Packages and the compiled codec lie in layers below, which are made from other files."""
    stages: dict[str, list[str]] = {}
    for line in instructions():
        if line.startswith("FROM"):
            stages[line.split()[3]] = []
        elif stages:
            stages[list(stages)[-1]].append(line)
    for build in ("cpu", "cuda"):
        layers = [line.split()[1] for line in stages[build] if line.startswith("COPY")]
        assert layers == [f"--from=dependencies-{build}", "--from=codec", f"--from=project-{build}"]
        seen = [line for stage in ("base-build", f"dependencies-{build}") for line in stages[stage]]
        assert not any("deca_node" in line for line in seen if line.startswith("COPY"))
    ours = [source for line in stages["codec"] if line.startswith("COPY") for source in line.split()[1:-1]]
    found = {file.relative_to(ROOT).as_posix() for source in ours for file in ROOT.glob(source)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (library,) = project["tool"]["setuptools"]["ext-modules"]
    assert found == {*library["sources"], *library["depends"], "tools/build_native.py"}


def test_the_image_checks_its_content_by_the_steps_of_the_build() -> None:
    """docker/check_install.sh reads the steps from the Dockerfile. The codec comes before the package around it."""
    steps = re.findall(r"^RUN (?:.* )?docker/install.sh ([a-z-]+)", "\n".join(instructions()), flags=re.MULTILINE)
    known = re.findall(r"^([a-z-]+)\)$", (DOCKER / "install.sh").read_text(), flags=re.MULTILINE)
    assert set(steps) == set(known)
    assert steps[:2] == ["tools", "codec"]
