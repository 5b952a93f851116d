"""The list of checks: its order, and what becomes of a check that fails or cannot run."""

from collections.abc import Iterator

import pytest

from deca_node.cli.checks import checkup
from deca_node.cli.checks.checkup import CHECKS, Check
from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, Verdict, passed
from deca_node.daemon.settings.sources import Loaded
from deca_node.protocol.errors import DataError


def no_settings() -> Loaded:
    raise AssertionError("no check here reads settings")


def test_every_check_stands_behind_the_one_that_it_needs() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for check in CHECKS:
        assert not check.needs or check.needs in names[: names.index(check.name)]


def test_nothing_has_passed_before_the_first_check() -> None:
    known = Known(no_settings, lambda _: None, 1.0)
    assert not any(known.has_passed(check.needs) for check in CHECKS if check.needs)


def test_a_failure_carries_the_advice_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Known) -> Iterator[Finding]:
        raise DataError("the moon is made of cheese")

    def passes(_: Known) -> Iterator[Finding]:
        yield passed("moon", "it is made of rock")

    listed = (
        Check("cheese", "", fails, "eat it"),
        Check("crackers", "settings", passes),
        Check("load", "", passes),
        Check("moon", "", passes),
    )
    monkeypatch.setattr(checkup, "CHECKS", listed)
    said: list[str] = []
    found = list(checkup.checkup(no_settings, said.append))
    assert [(finding.check, finding.verdict, finding.do) for finding in found] == [
        ("cheese", Verdict.FAILED, "eat it"),
        ("crackers", Verdict.SKIPPED, ""),
        ("moon", Verdict.OK, ""),
    ]
    assert said == ["cheese", "crackers", "moon"], "the check that takes long runs only when it is asked for"


def test_a_check_that_breaks_down_hides_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Known) -> Iterator[Finding]:
        yield passed("sea", "it is wet")
        raise ZeroDivisionError("nobody foresaw this")

    def passes(_: Known) -> Iterator[Finding]:
        yield passed("moon", "it is made of rock")

    monkeypatch.setattr(checkup, "CHECKS", (Check("sea", "", breaks), Check("moon", "", passes)))
    found = list(checkup.checkup(no_settings, lambda _: None))
    assert [(finding.check, finding.verdict) for finding in found] == [
        ("sea", Verdict.OK),
        ("sea", Verdict.FAILED),
        ("moon", Verdict.OK),
    ]
    assert found[1].says == "this check broke down: ZeroDivisionError: nobody foresaw this"
    assert "ZeroDivisionError" in found[1].facts["traceback"] and "report it" in found[1].do
