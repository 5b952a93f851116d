"""What holds for every test: one thread per process, nothing fetched, the same examples every time in CI.

The environment is set before anything imports torch, because torch reads it once, at import. Processes that a
test starts inherit it. On a machine with few cores, threads that wait for each other cost far more than they
give, and with one thread the order of floating-point sums is fixed.
"""

import os

from hypothesis import HealthCheck, settings

from deca_node.process.memory import collect_seldom

collect_seldom()
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

# No deadline, because a busy machine is no bug. In CI the examples are the same in every run; at home they vary,
# and one that fails is kept in .hypothesis and tried first the next time.
settings.register_profile("home", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("home"), derandomize=True, database=None, print_blob=True)
# Few examples for `make mutants`, which runs the tests of a room thousands of times.
settings.register_profile("mutants", settings.get_profile("ci"), max_examples=5)
settings.load_profile("ci" if os.environ.get("CI") else "home")
