"""The alerts fire when they should: the unit tests of ``docker/observability/alerts_test.yaml``, in promtool's format.

They run through the small evaluator of :mod:`tests.deploy.promql`, and through promtool itself where it is installed.
"""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy import promql
from tests.deploy.manifests import ROOT

FOLDER = ROOT / "docker" / "observability"
UNIT_TESTS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for rule in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
}
EVERY_SECONDS = promql.seconds(UNIT_TESTS["evaluation_interval"])
PROMTOOL = shutil.which("promtool")
"""Debian's package `prometheus` has it."""

JOINING = "changes(deca_run_steps_done[15m]) == 0 and on (node) deca_run_steps_done < deca_run_steps"
JOINING += ' unless on (node) deca_phase_info{phase="paused"}'


def alerts(rule: dict[str, Any], case: dict[str, Any], at: str) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Labels and annotations of what fires at a time."""
    interval = promql.seconds(case["interval"])
    series = [promql.read_series(given["series"], given["values"], interval) for given in case["input_series"]]
    found = []
    for labels in promql.firing(rule, series, promql.seconds(at), EVERY_SECONDS):
        facts = dict(labels)
        says = {
            name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: facts.get(m[1], ""), text)  # noqa: B023
            for name, text in rule["annotations"].items()
        }
        found.append((facts | rule["labels"], says))
    return sorted(found, key=repr)


def expected(wanted: dict[str, Any]) -> list[tuple[dict[str, str], dict[str, str]]]:
    return sorted(((each["exp_labels"], each["exp_annotations"]) for each in wanted["exp_alerts"]), key=repr)


def ordered(found: list[tuple[dict[str, str], dict[str, str]]]) -> list[tuple[list[Any], list[Any]]]:
    return sorted((sorted(labels.items()), sorted(says.items())) for labels, says in found)


@pytest.mark.parametrize("case", UNIT_TESTS["tests"], ids=lambda case: case["name"])
def test_alerts_fire_as_the_unit_tests_say(case: dict[str, Any]) -> None:
    for wanted in case["alert_rule_test"]:
        found = alerts(RULES[wanted["alertname"]], case, wanted["eval_time"])
        assert ordered(found) == ordered(expected(wanted)), (wanted["alertname"], wanted["eval_time"])


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    asked = [wanted for case in UNIT_TESTS["tests"] for wanted in case["alert_rule_test"]]
    for fires in (True, False):
        assert {wanted["alertname"] for wanted in asked if bool(wanted["exp_alerts"]) is fires} == set(RULES) - (
            set() if fires else {"DecaCallersRefused"}
        )


def test_a_rule_that_joins_runs_by_the_node_alone_fails_the_unit_tests() -> None:
    rule = {**RULES["DecaNoProgress"], "expr": JOINING, "for": "5m"}
    wrong = [
        case["name"]
        for case in UNIT_TESTS["tests"]
        for wanted in case["alert_rule_test"]
        if wanted["alertname"] == "DecaNoProgress"
        and ordered(alerts(rule, case, wanted["eval_time"])) != ordered(expected(wanted))
    ]
    assert "a paused node of the same name in another namespace does not silence a stuck one" in wrong
    assert any("just appeared" in name for name in wrong)


if PROMTOOL is not None:

    def test_promtool_agrees() -> None:
        command = [PROMTOOL, "test", "rules", "alerts_test.yaml"]
        done = subprocess.run(command, cwd=FOLDER, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
