"""The Slurm job with a Slurm of its own making: environment, signals, and an `scontrol` that writes down its calls."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from tests.deploy.manifests import DEPLOY
from tests.e2e.testbed import Testbed, make_tiny_model, until
from tests.patience import PATIENCE_SECONDS

SCRIPT = DEPLOY / "slurm" / "node.sbatch"

FAKE_NODE = """\
#!/bin/bash
# Fails with $FAILS at once; or trains until `stop`, or to the end of the run if $ENDS is set.
echo "$@" >> calls
case $1 in
stop) touch stopped; exit ;;
esac
[ -z "$FAILS" ] || exit "$FAILS"
[ -z "$ENDS" ] || { mkdir -p "$DECA_DIR/final"; exit 0; }
touch running
until [ -e stopped ]; do sleep 0.02; done
"""


@dataclass
class Slurm:
    """Jobs in ``folder``; ``environment`` is added to what Slurm gives every job."""

    folder: Path
    path: str
    environment: dict[str, str] = field(default_factory=dict)
    jobs: list["subprocess.Popen[str]"] = field(default_factory=list)

    def sbatch(self, **environment: str) -> "subprocess.Popen[str]":
        slurm = {"SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(self.folder), "SLURM_CPUS_PER_TASK": "1"}
        job = subprocess.Popen(
            ["bash", str(SCRIPT)],
            env={**os.environ, "PATH": self.path, **slurm, **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.jobs.append(job)
        return job

    def requeued(self) -> int:
        """How often a job was put back into the queue."""
        file = self.folder / "requeued"
        return file.read_text().count("requeue 17\n") if file.exists() else 0


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs / "scontrol", '#!/bin/sh\necho "$@" >> requeued\n')
    made = Slurm(tmp_path, f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield made
    for job in made.jobs:
        if job.poll() is None:
            job.kill()
        job.communicate()


def program(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def end(job: "subprocess.Popen[str]") -> tuple[int, str]:
    said, _ = job.communicate(timeout=PATIENCE_SECONDS)
    return job.returncode, said


@pytest.fixture
def fake(slurm: Slurm) -> Slurm:
    program(slurm.folder / "bin" / "deca-node", FAKE_NODE)
    return slurm


def test_the_job_ends_with_the_run(fake: Slurm) -> None:
    code, said = end(fake.sbatch(ENDS="yes"))
    assert (code, fake.requeued()) == (0, 0)
    assert "the run is complete" in said


@pytest.mark.parametrize("times", [1, 3])
def test_the_time_limit_queues_it_again(fake: Slurm, times: int) -> None:
    """Also if the signal comes more than once, as with a preemption shortly before the time limit."""
    job = fake.sbatch()
    until((fake.folder / "running").exists, "the node to run")
    for _ in range(times):
        job.send_signal(signal.SIGTERM)
    code, said = end(job)
    assert (code, fake.requeued()) == (0, 1), said
    assert "stop" in (fake.folder / "calls").read_text()


def test_a_stop_by_a_person_does_not_queue_it_again(fake: Slurm) -> None:
    job = fake.sbatch()
    until((fake.folder / "running").exists, "the node to run")
    (fake.folder / "stopped").touch()
    code, said = end(job)
    assert (code, fake.requeued()) == (0, 0)
    assert "asked to stop" in said


@pytest.mark.parametrize("failure", [2, 3, 7])
def test_what_a_person_must_correct_ends_the_job(fake: Slurm, failure: int) -> None:
    code, said = end(fake.sbatch(FAILS=str(failure)))
    assert (code, fake.requeued()) == (failure, 0)
    assert "a restart does not help" in said


def test_other_failures_are_tried_again_so_many_times(fake: Slurm) -> None:
    assert end(fake.sbatch(FAILS="11", SLURM_RESTART_COUNT="19"))[0] == 0
    assert fake.requeued() == 1
    assert end(fake.sbatch(FAILS="11", SLURM_RESTART_COUNT="20"))[0] == 11
    assert fake.requeued() == 1


FAKE_SRUN = """\
#!/bin/bash
# Runs the rest of its line here, as if this were the other machine.
echo "srun $@" >> calls
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


def test_further_machines_lend_their_gpus(fake: Slurm) -> None:
    program(fake.folder / "bin" / "srun", FAKE_SRUN)
    code, said = end(
        fake.sbatch(ENDS="yes", SLURM_JOB_NUM_NODES="3", SLURM_GPUS_ON_NODE="8", RANKS_AT="10.0.0.1:29400")
    )
    assert code == 0, said
    calls = (fake.folder / "calls").read_text()
    secret = fake.folder / ".ranks-17"
    lend = f"lend --to 10.0.0.1:29400 --devices cuda*8 --secret {secret} --threads 1"
    assert f"srun --overlap --nodes=2 --ntasks=2 --relative=1 deca-node {lend}\n" in calls
    assert f"\n{lend}\n" in calls or calls.startswith(f"{lend}\n"), "with one machine's arguments"
    assert not secret.exists(), "the secret is of one start"


def test_several_machines_without_gpus_are_refused(fake: Slurm) -> None:
    code, said = end(fake.sbatch(ENDS="yes", SLURM_JOB_NUM_NODES="2"))
    assert code == 3
    assert "ask for some with --gpus-per-node" in said


def test_what_slurm_is_asked_for() -> None:
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", SCRIPT.read_text(), re.MULTILINE))
    assert asked["signal"] == "B:TERM@300"
    assert (asked["nodes"], asked["ntasks"]) == ("1", "1")
    assert {"requeue", "time", "open-mode"} <= asked.keys()
    assert "#SBATCH" not in SCRIPT.read_text().partition("set -u")[2], "Slurm reads no directives after a command"


@pytest.mark.slow
def test_a_real_node_is_preempted_and_goes_on(slurm: Slurm) -> None:
    make_tiny_model(slurm.folder / "model")
    data = Testbed(slurm.folder, slurm.folder).data("north")
    (slurm.folder / "run.toml").write_text("rounds = 2\ninner_steps = 40\nsequence_length = 16\nbatch_size = 2\n")
    (slurm.folder / "node.toml").write_text(
        f'name = "north"\ninsecure = 2\nwait_for = 1\nmodel = "model"\ndata = "{data}"\n'
    )
    (port,) = free_ports(1)
    slurm.environment = {"PORT": str(port), "ADVERTISE": f"{LOOPBACK}:{port}"}
    steps = slurm.folder / "node" / "metrics.jsonl"
    job = slurm.sbatch()
    until(lambda: job.poll() is not None or (steps.exists() and steps.read_text().count("loss") > 5), "some steps")
    job.send_signal(signal.SIGTERM)
    code, said = end(job)
    assert (code, slurm.requeued()) == (0, 1), said
    code, said = end(slurm.sbatch(SLURM_RESTART_COUNT="1"))
    assert (code, slurm.requeued()) == (0, 1), said
    assert "going on from the checkpoint" in said
    assert (slurm.folder / "node" / "final" / "model.safetensors").exists()
