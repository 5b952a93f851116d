"""Many storms, and the output for one that breaks a rule. A few hundred more run in
tests/protocol/node/test_cluster.py."""

import pytest

from deca_node.lab.sim import storms
from deca_node.lab.sim.checks.audit import Audit
from deca_node.lab.sim.checks.endings import check_end, flushed
from deca_node.lab.sim.drawn import UNTIL, calmed, storm
from deca_node.lab.sim.storms import main, weathered


@pytest.mark.slow
@pytest.mark.parametrize("thousand", range(4))
def test_thousands_of_storms(thousand: int) -> None:
    seeds = range(1000 * (thousand + 1), 1000 * (thousand + 2))
    failures = [failure for _, failure, _ in storms.outcomes(seeds, processes=1) if failure]
    assert not failures, failures[0]


def test_after_calmed_storms_all_copies_agree() -> None:
    """In some storms not all nodes take part in the whole flush, because a node returns too late. In most they do."""
    whole = 0
    for seed in range(20):
        chosen = calmed(storm(seed))
        cluster, audit = chosen.cluster()
        cluster.run(until=UNTIL)
        check_end(chosen, cluster, audit)
        whole += flushed(chosen, cluster)
    assert whole >= 10


def test_a_seed_gives_one_storm() -> None:
    assert storm(7) == storm(7) != storm(8)
    assert weathered(3)[1].transcript() == weathered(3)[1].transcript()


def test_what_fails_is_shown_with_its_seed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken rule ends its own storm only, and the exit code shows it."""
    good = Audit.check
    calls = iter(range(10**6))

    def check(audit: Audit) -> None:
        good(audit)
        assert next(calls) != 100, "a rule is broken"

    monkeypatch.setattr(Audit, "check", check)
    monkeypatch.setattr("sys.argv", ["storms", "--seeds", "3", "--first", "11"])
    assert main() == 1
    shown = capsys.readouterr().out
    assert "AssertionError: a rule is broken" in shown
    assert "cluster seed 11; the transcript ends with" in shown
    assert "the whole transcript: python -m deca_node.lab.sim.storms --seed 11" in shown
    assert "3 storms, 1 failed" in shown
