"""What nodes must agree on: the fingerprint, the sentence when they do not, and settings that are refused."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest

from deca_node.protocol.agreed.run import Agreement, ModelFacts, RunSettings, agree, mismatch
from deca_node.protocol.errors import SettingsError

MODEL = ModelFacts("ab" * 32, ("embedding", "layers.0", "head"), (100, 200, 50))


def agreement(model: ModelFacts = MODEL, **settings: object) -> Agreement:
    return agree(RunSettings(**settings), model)  # type: ignore[arg-type]


def other_value(field: "dataclasses.Field[Any]") -> object:
    """A valid value other than the default."""
    facts: Mapping[str, Any] = field.metadata
    if facts["choices"]:
        return next((choice for choice in facts["choices"] if choice != field.default), field.default)
    if isinstance(field.default, str):
        return field.default + "-2"
    if isinstance(field.default, int):
        return field.default + 1
    return (field.default or 0.5) * 0.9


def test_the_fingerprint_is_that_of_equal_runs_only() -> None:
    assert agreement().fingerprint == agreement().fingerprint
    assert re.fullmatch("[0-9a-f]{64}", agreement().fingerprint)
    assert agreement(model=dataclasses.replace(MODEL, sha256="cd" * 32)).fingerprint != agreement().fingerprint


@pytest.mark.parametrize("field", dataclasses.fields(RunSettings), ids=lambda field: field.name)
def test_every_setting_counts(field: "dataclasses.Field[Any]") -> None:
    """A setting that is left out of the agreement would let two nodes run differently without a word."""
    given = {"task": "classification", "labels": "neg, pos"} if field.name == "labels" else {}
    changed = agreement(**(given | {field.name: f"{given['labels']}, odd" if given else other_value(field)}))
    one_choice = field.metadata["choices"] and len(field.metadata["choices"]) == 1
    assert (changed.fingerprint == agreement(**given).fingerprint) == bool(one_choice)


def test_agreeing_runs_have_no_mismatch() -> None:
    assert mismatch(agreement(), agreement(), "a", "b") is None


def test_a_mismatch_names_every_field_and_both_values() -> None:
    sentence = mismatch(agreement(codec="int8"), agreement(codec="int4", learning_rate=1e-4), "north", "south")
    assert sentence == (
        "the run differs: codec is int8 at north and int4 at south; learning_rate is 5e-05 at north and 0.0001 at south"
    )


def test_labels_that_a_model_brings_along_are_agreed_on_in_their_order() -> None:
    """The hash of the weights does not say which output means what."""
    one, other = (dataclasses.replace(MODEL, labels=labels) for labels in (("neg", "pos"), ("pos", "neg")))
    ours, theirs = (agreement(model, task="classification") for model in (one, other))
    assert mismatch(ours, theirs, "a", "b") == "the run differs: classes is neg, pos at a and pos, neg at b"
    assert "classes" not in agreement().fields


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("neg", "must be two names or more"),
        ("neg,,pos", "must be two names or more"),
        ("neg, pos, neg", "names 'neg' twice"),
    ],
)
def test_labels_that_are_refused(labels: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        RunSettings(task="classification", labels=labels)


def test_labels_are_names_by_their_numbers() -> None:
    assert RunSettings(task="classification", labels=" very bad,good ").label_names == ("very bad", "good")
    assert RunSettings(task="classification").label_names == ()
    with pytest.raises(SettingsError, match="goes with task = 'classification', not 'causal-lm'"):
        RunSettings(labels="neg, pos")


def test_a_mismatch_of_models_names_the_blocks() -> None:
    smaller = ModelFacts(MODEL.sha256, ("embedding", "head"), (100, 50))
    assert mismatch(agreement(), agreement(model=smaller), "a", "b") == (
        "the run differs: blocks is embedding:100 layers.0:200 head:50 at a and embedding:100 head:50 at b"
    )


def test_a_field_that_one_side_does_not_know_is_absent() -> None:
    older = Agreement({name: value for name, value in agreement().fields.items() if name != "codec"})
    assert mismatch(agreement(), older, "a", "b") == "the run differs: codec is int8 at a and absent at b"
    assert mismatch(older, agreement(), "a", "b") == "the run differs: codec is absent at a and int8 at b"


def test_long_values_are_cut_short() -> None:
    many = ModelFacts(MODEL.sha256, tuple(f"layers.{i}" for i in range(1000)), (100,) * 1000)
    sentence = mismatch(agreement(many), agreement(), "a", "b")
    assert sentence is not None and len(sentence) < 300 and "…" in sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"discrepancy": "rms", "h_into": "m"}, "discrepancy = 'rms' with h_into = 'm' diverges"),
        ({"exchange": "overlap", "gamma_c": 0.6}, "exchange = 'overlap' needs gamma_c <= 0.5, got 0.6"),
        ({"codec": "topk", "gamma_c": 0.5}, "codec = 'topk' needs gamma_c <= 0.125, got 0.5"),
        ({"topology": "edges"}, "topology = 'edges' needs the pairs of neighbours"),
        ({"degree": 1}, "degree = 1 is below its smallest value, 2"),
        ({"rounds": 0}, "rounds = 0 is below its smallest value, 1"),
        ({"late_steps": 9}, "late_steps = 9 is above its largest value, 8"),
        ({"learning_rate": float("nan")}, "learning_rate = nan is not a finite number"),
        ({"codec": "int88"}, "codec = 'int88' is not one of fp32, bf16, int8, int4, topk; did you mean 'int8'?"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        RunSettings(**settings)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("h_into", ["both", "v"])
def test_rms_is_taken_where_the_second_moment_sees_it(h_into: str) -> None:
    assert RunSettings(discrepancy="rms", h_into=h_into).h_into == h_into


@pytest.mark.parametrize(
    ("exchange", "gamma_c", "share"),
    [("lockstep", 0.0, 1.0), ("overlap", 0.0, 0.5), ("lockstep", 0.7, 0.7), ("overlap", 0.5, 0.5)],
)
def test_flow_share(exchange: str, gamma_c: float, share: float) -> None:
    """gamma_c = 0 takes the stable default of the exchange mode."""
    assert RunSettings(exchange=exchange, gamma_c=gamma_c).flow_share == share


def test_flow_share_of_topk() -> None:
    """What is stable for dense codecs is not for one that sends a sixteenth of the elements."""
    shares = [RunSettings(codec="topk", exchange=exchange).flow_share for exchange in ("lockstep", "overlap")]
    assert shares == [0.125, 0.125]
    assert RunSettings(codec="topk", gamma_c=0.05).flow_share == 0.05
