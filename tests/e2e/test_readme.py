"""The README's lines, and nothing else: two nodes on one machine from `init` to `chat`, and two parties that provision
from scratch and train."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deca_node.lab.report.metrics import read_metrics
from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from tests.e2e.testbed import Testbed, largest_of
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
PARTIES = {"north": ("north",), "south": ("south",), "both": ("north", "south")}
SMALL = {"DECA_ROUNDS": "1", "DECA_INNER_STEPS": "6", "DECA_SEQUENCE_LENGTH": "16", "DECA_BATCH_SIZE": "2"}
SMALL |= {"DECA_THREADS": "1"}
"""How much is trained is none of the lines' business; all else is as they say."""


def code(title: str) -> list[str]:
    """The lines of code of one of the README's sections."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"## {title}\n")[2]
    return section.partition("```\n")[2].partition("```")[0].splitlines()


def lines() -> list[tuple[str, str]]:
    """Who, and what: the code of the README's section for two parties."""
    return [(who, command) for who, command in (line.split(maxsplit=1) for line in code("Two parties, two machines"))]


class Party:
    """One of the two, in a folder that stands for a machine."""

    def __init__(self, folder: Path, name: str, fingerprint: str = "") -> None:
        self.folder, self.name, self.fingerprint = folder, name, fingerprint

    def command(self, line: str) -> list[str]:
        words = shlex.split(line.replace("NAME", self.name).replace("sha256:...", self.fingerprint))
        assert words[0] == "deca-node", line
        return [sys.executable, "-m", "deca_node", *words[1:]]

    def run(self, line: str) -> str:
        done = subprocess.run(self.command(line), cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def start(self, line: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("wb") as out:
            environment = {**os.environ, **SMALL}
            return subprocess.Popen(self.command(line), cwd=self.folder, stdout=out, stderr=out, env=environment)


@pytest.mark.slow
def test_two_parties_provision_with_the_readmes_lines_and_train(testbed: Testbed) -> None:
    parties = {name: Party(testbed.folder / name, name) for name in ("north", "south")}
    ports = free_ports(2)
    for name, party in parties.items():
        party.folder.mkdir()
        shutil.copytree(testbed.model, party.folder / "model")
        shutil.copy(testbed.data(name), party.folder / f"{name}.jsonl")
        peers = [f"{each}@{LOOPBACK}:{port}\n" for each, port in zip(parties, ports, strict=True)]
        (party.folder / "peers.txt").write_text("".join(peers))
    north, south = parties["north"], parties["south"]
    running = []
    try:
        for who, line in lines():
            for party in (parties[name] for name in PARTIES[who]):
                if " start " in line:
                    running.append(party.start(line))
                    continue
                told = party.run(line)
                if " init " in line:
                    (found,) = re.findall(r"sha256:[0-9A-Fa-f:]+", told)
                    # By telephone.
                    north.fingerprint = south.fingerprint = found
            # What the paragraph below the lines says is sent from one to the other; keys are not among it.
            for source, there in (
                (south.folder / "deca-certs" / "south.csr", north),
                (north.folder / "south.crt", south),
            ):
                if source.exists():
                    shutil.copy(source, there.folder)
        assert len(running) == 2
        assert [process.wait(PATIENCE_SECONDS) for process in running] == [0, 0], (north.folder / "log").read_text()[
            -3000:
        ]
    finally:
        for process in running:
            process.kill()
            process.wait()
    finals = [party.folder / "deca-data" / name / "final" for name, party in parties.items()]
    assert largest_of(*finals) < 1e-3
    keys = [path.name for folder in (north.folder, south.folder) for path in folder.rglob("*.key")]
    assert sorted(keys) == ["ca.key", "north.key", "south.key"], "no key has travelled, and none was copied"
    assert all("plaintext" not in (party.folder / "log").read_text() for party in parties.values())


def ask(folder: Path, words: list[str]) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, input="Which boat?\n")
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_own_records_from_init_to_chat_with_the_readmes_lines(tmp_path: Path) -> None:
    """All lines below the set-up, with the toy model that they make. Only the time that training gets is shorter."""
    for number, name in enumerate(("north", "south")):
        chats = [[("user", f"Which boat has number {k}?"), ("assistant", f"Boat {number + k}.")] for k in range(40)]
        records = [{"messages": [{"role": who, "content": says} for who, says in chat]} for chat in chats]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    commands = [shlex.split(line.partition("#")[0]) for line in code("Your own records, two nodes on this machine")]
    assert commands[0][:2] == ["make", "setup-to-run"]
    running = []
    try:
        for words in commands[1:]:
            typed = [sys.executable, "-m", "deca_node", *("0.2" if word == "3" else word for word in words[1:])]
            if words[1] == "start":
                running.append(
                    subprocess.Popen(typed, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                )
                continue
            if words[1] == "status":  # for meanwhile: the nodes may not answer yet, or not any more
                assert subprocess.run(typed, cwd=tmp_path, capture_output=True, check=False).returncode in (0, 12)
                assert [process.wait(PATIENCE_SECONDS) for process in running] == [0, 0]
                continue
            told = ask(tmp_path, typed)
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert len(running) == 2
    assert "/deca-demo/model:\n" in told
    assert "tuned model of deca-data/north:\n" in told
    first, *_, last = read_metrics(tmp_path / "deca-data" / "north" / "metrics.jsonl").evaluations
    assert last.loss < first.loss
