"""Declared settings: limits, choices, names, and the spelling of values in fingerprints."""

import math
from dataclasses import dataclass, fields, make_dataclass

import pytest

from deca_node.protocol.agreed.settings import canonical, check_limits, check_names, nearest, setting
from deca_node.protocol.errors import SettingsError


@dataclass(frozen=True)
class Oven:
    heat: float = setting(180.0, "How hot.", unit="degrees", low=0.0, high=300.0)
    trays: int = setting(1, "How many.", low=1)
    mode: str = setting("fan", "How.", choices=("fan", "grill"))
    light: bool = setting(True, "Whether one sees anything.")


def test_limits_are_inclusive() -> None:
    check_limits(Oven(heat=0.0))
    check_limits(Oven(heat=300.0, trays=10**9, light=False))


@pytest.mark.parametrize(
    ("oven", "sentence"),
    [
        (Oven(heat=-0.5), "heat = -0.5 is below its smallest value, 0.0"),
        (Oven(heat=301.0), "heat = 301.0 is above its largest value, 300.0"),
        (Oven(heat=math.inf), "heat = inf is not a finite number"),
        (Oven(heat=math.nan), "heat = nan is not a finite number"),
        (Oven(trays=0), "trays = 0 is below its smallest value, 1"),
        (Oven(mode="gril"), "mode = 'gril' is not one of fan, grill; did you mean 'grill'?"),
        (Oven(mode="x"), "mode = 'x' is not one of fan, grill"),
    ],
)
def test_what_is_outside_is_refused_by_name(oven: Oven, sentence: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        check_limits(oven)
    assert str(refusal.value) == sentence


def test_a_setting_carries_its_documentation() -> None:
    facts = {field.name: field.metadata for field in fields(Oven)}
    assert facts["heat"]["help"] == "How hot." and facts["heat"]["unit"] == "degrees"
    assert facts["mode"]["choices"] == ("fan", "grill")


def test_everything_that_is_declared_is_kept() -> None:
    [declared] = fields(
        make_dataclass("Lamp", [("light", int, setting(4, "How bright.", unit="lm", choices=("4",), low=1, high=9))])
    )
    assert declared.default == 4
    assert declared.metadata == {"help": "How bright.", "unit": "lm", "choices": ("4",), "low": 1, "high": 9}
    [plain] = fields(make_dataclass("Lamp", [("light", int, setting(4, "How bright."))]))
    assert plain.metadata == {"help": "How bright.", "unit": "", "choices": (), "low": None, "high": None}


def test_whole_numbers_end_at_two_to_the_53() -> None:
    check_limits(Oven(trays=2**53))
    with pytest.raises(SettingsError) as refusal:
        check_limits(Oven(trays=2**53 + 1))
    assert str(refusal.value) == "trays is a whole number beyond 2^53; give a smaller one"
    with pytest.raises(SettingsError):
        check_limits(Oven(trays=-(2**53) - 1))


def test_unknown_names_are_refused_with_the_nearest_known_one() -> None:
    check_names(["heat", "trays"], ["heat", "trays", "mode"], "oven.toml")
    with pytest.raises(SettingsError, match=r"^oven.toml: there is no setting 'haet'; did you mean 'heat'\?$"):
        check_names(["haet"], iter(["heat", "trays"]), "oven.toml")
    with pytest.raises(SettingsError, match=r"^oven.toml: there is no setting 'zzz'$"):
        check_names(["zzz"], ["heat"], "oven.toml")


def test_nearest() -> None:
    assert nearest("inner_step", ["inner_steps", "rounds"]) == "; did you mean 'inner_steps'?"
    assert nearest("q", ["inner_steps"]) == ""


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        (5e-5, "5e-05"),
        (1.0, "1.0"),
        (1, "1"),
        (True, "true"),
        (False, "false"),
        ("ring", "ring"),
        ({"b": 2.0, "a": True}, "a=true, b=2.0"),
    ],
)
def test_canonical(value: object, spelling: str) -> None:
    assert canonical(value) == spelling
