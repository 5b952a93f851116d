"""Priorities of the trainer and of the node, as the system sees them."""

import os
import platform
import subprocess
import sys

import pytest

from deca_node.daemon.settings.node_settings import TRAINER_PRIORITIES
from deca_node.process.priority import NICENESS_LOW, NICENESS_MAX, SLICE_NANOSECONDS, give_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's classes of processes")

SLICES = """
import ctypes, os, struct, subprocess, sys
from deca_node.daemon.settings.node_settings import TRAINER_PRIORITIES
from deca_node.process.priority import answer_promptly, give_way

def slice_of(pid):
    found = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(number, pid, found, 48, 0) == 0
    return struct.unpack("=IIQiIQQQ", found.raw)[5]

own = os.getpriority(os.PRIO_PROCESS, 0)
before = slice_of(0)
assert answer_promptly()
assert os.getpriority(os.PRIO_PROCESS, 0) == own and os.sched_getscheduler(0) == os.SCHED_OTHER
child = subprocess.Popen(["sleep", "60"])
inherited = slice_of(child.pid)
give_way(child.pid, sys.argv[1])
print(before, slice_of(0), inherited, slice_of(child.pid))
child.kill()
child.wait()
"""

CHOSEN = """
import os, subprocess, sys
from deca_node.daemon.settings.node_settings import TRAINER_PRIORITIES
from deca_node.process.priority import answer_promptly, give_way

os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
changed = answer_promptly()
child = subprocess.Popen(["sleep", "60"])
give_way(child.pid, sys.argv[1])
print(int(changed), os.sched_getscheduler(0), os.sched_getscheduler(child.pid))
child.kill()
child.wait()
"""


@pytest.mark.parametrize("priority", TRAINER_PRIORITIES)
def test_a_process_stands_back_as_far_as_it_is_told(priority: str) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    expected = {
        "idle": (os.SCHED_IDLE, NICENESS_MAX),
        "low": (os.SCHED_OTHER, min(own + NICENESS_LOW, NICENESS_MAX)),
        "normal": (os.SCHED_OTHER, own),
    }
    process = subprocess.Popen(["sleep", "60"])
    try:
        give_way(process.pid, priority)
        found = os.sched_getscheduler(process.pid), os.getpriority(os.PRIO_PROCESS, process.pid)
    finally:
        process.kill()
        process.wait()
    assert found == expected[priority]


@pytest.mark.parametrize(("priority", "policy"), [("normal", os.SCHED_BATCH), ("idle", os.SCHED_IDLE)])
def test_a_class_that_the_owner_chose_for_the_node_is_kept(priority: str, policy: int) -> None:
    done = subprocess.run([sys.executable, "-c", CHOSEN, priority], capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == [False, os.SCHED_BATCH, policy]


def test_a_process_that_has_ended_is_no_error() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    give_way(process.pid, "idle")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the number of the call is not known")
@pytest.mark.parametrize("priority", TRAINER_PRIORITIES)
def test_the_network_keeps_a_core_for_a_short_time_and_its_trainer_does_not_inherit_that(priority: str) -> None:
    done = subprocess.run([sys.executable, "-c", SLICES, priority], capture_output=True, text=True, check=True)
    before, short, inherited, trainers = map(int, done.stdout.split())
    if not before:
        pytest.skip("this Linux has no slices of one's own")
    assert short == inherited == SLICE_NANOSECONDS < before
    assert trainers == before
