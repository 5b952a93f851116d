"""Agreements: their fingerprints, and the sentence where two of them differ."""

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from deca_node.protocol.agreed.agreement import Agreement, ModelFacts, agree, differing_settings, mismatch
from deca_node.protocol.agreed.run import RunSettings

MODEL = ModelFacts("ab" * 32, ("embedding", "layers.0", "head"), (100, 200, 50))
CLASSIFIER = dataclasses.replace(MODEL, labels=("neg", "pos"))
TUNED = """
run_name = "ward"
seed = 7
rounds = 2
inner_steps = 24
task = "classification"
labels = "neg, pos"
learning_rate = 3e-4
lr_schedule = "cosine"
discrepancy = "precond"
h_into = "both"
signal = "v"
topology = "ring"
codec = "int4"
exchange = "overlap"
gamma_c = 0.25
robust = "clip"
robust_neighbours = 0
clip_radius = 2.5
"""

NEEDS: dict[str, dict[str, object]] = {
    "partners": {"topology": "pairs", "moments_every": 1, "mix_every": 4},
    "weights": {"weight_tokens": 1000},
    "labels": {"task": "classification", "labels": "neg, pos"},
    "epochs": {"epochs": 3.0, "epoch_sequences": 100},
    "epoch_sequences": {"epochs": 3.0, "epoch_sequences": 100},
}
"""What else is set beside a setting that means nothing alone."""


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
        return field.default // 2 if field.default == facts["high"] else field.default + 1
    return 0.45 if field.default <= 0.0 else field.default * 0.9


def test_the_fingerprint_is_that_of_equal_runs_only() -> None:
    assert agreement().fingerprint == agreement().fingerprint
    assert re.fullmatch("[0-9a-f]{64}", agreement().fingerprint)
    assert agreement(model=dataclasses.replace(MODEL, sha256="cd" * 32)).fingerprint != agreement().fingerprint


@pytest.mark.parametrize(
    ("text", "model", "fingerprint"),
    [
        ('packing = "concatenated"', MODEL, "50e8ab9d21833faeb4e0c5406f3b1946d75fdd36221c5c857b28763ed40b0847"),
        ("", MODEL, "6ef4837285c8d666723db0903dad92a1e1b925422b0f1e494765507b00d6ac6b"),
        (TUNED, CLASSIFIER, "2edb85bbcf852b9ca9b9d20d7df918536770f29bdfffe7cf1016f55296f4b9b4"),
    ],
    ids=["of a run before the setting packing", "defaults", "tuned"],
)
def test_fingerprints_stay_as_they_are(text: str, model: ModelFacts, fingerprint: str) -> None:
    """Folders of older releases hold fingerprints, and nodes of two releases compare theirs, so none may change."""
    assert agree(RunSettings(**tomllib.loads(text)), model).fingerprint == fingerprint


@pytest.mark.parametrize("field", dataclasses.fields(RunSettings), ids=lambda field: field.name)
def test_every_setting_counts(field: "dataclasses.Field[Any]") -> None:
    """A setting that is left out of the agreement would let two nodes run differently without a word."""
    given: dict[str, object] = NEEDS.get(field.name, {})
    changed = agreement(**(given | {field.name: "neg, pos, odd" if field.name == "labels" else other_value(field)}))
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
    """The hash of the weights does not tell the order of the labels."""
    one, other = (dataclasses.replace(MODEL, labels=labels) for labels in (("neg", "pos"), ("pos", "neg")))
    ours, theirs = (agreement(model, task="classification") for model in (one, other))
    assert mismatch(ours, theirs, "a", "b") == "the run differs: classes is neg, pos at a and pos, neg at b"
    assert "classes" not in agreement().fields


def test_a_mismatch_of_models_names_the_blocks() -> None:
    smaller = ModelFacts(MODEL.sha256, ("embedding", "head"), (100, 50))
    assert mismatch(agreement(), agreement(model=smaller), "a", "b") == (
        "the run differs: blocks is embedding:100 layers.0:200 head:50 at a and embedding:100 head:50 at b"
    )


def test_a_field_that_one_side_does_not_know_is_absent() -> None:
    older = Agreement({name: value for name, value in agreement().fields.items() if name != "codec"})
    assert mismatch(agreement(), older, "a", "b") == "the run differs: codec is int8 at a and absent at b"
    assert mismatch(older, agreement(), "a", "b") == "the run differs: codec is absent at a and int8 at b"


def test_runs_from_before_the_setting_packing_are_concatenated() -> None:
    """An agreement without it is that of such a run; the task that has no use for it knows nothing of it."""
    old = Agreement({name: value for name, value in agreement().fields.items() if name != "packing"})
    assert old == agreement(packing="concatenated") != agreement()
    says = "the run differs: packing is isolated at a and concatenated at b"
    assert mismatch(agreement(), old, "a", "b") == says
    assert mismatch(agreement(packing="concatenated"), old, "a", "b") is None
    assert differing_settings(old.fields, RunSettings(packing="concatenated")) == []
    assert differing_settings(old.fields, RunSettings()) == ["packing"]
    other = RunSettings(packing="concatenated", codec="int4")
    assert differing_settings(agreement().fields, other) == ["packing", "codec"]
    labelled = [agreement(task="classification", packing=packing) for packing in ("isolated", "concatenated")]
    assert labelled[0] == labelled[1]


def test_runs_from_before_a_training_setting_do_not_have_it() -> None:
    """A node of an older release takes part as long as the setting is off, and is told the field where it is on."""
    decaying = agreement(weight_decay=0.1)
    assert "weight_decay" not in agreement().fields and decaying.fields["weight_decay"] == "0.1"
    assert mismatch(agreement(), decaying, "a", "b") == "the run differs: weight_decay is 0.0 at a and 0.1 at b"
    assert differing_settings(agreement().fields, RunSettings(weight_decay=0.1)) == ["weight_decay"]
    clipped = agreement(task="classification", max_grad_norm=1.0)
    assert clipped.fields["max_grad_norm"] == "1.0"


def test_long_values_are_cut_short() -> None:
    many = ModelFacts(MODEL.sha256, tuple(f"layers.{i}" for i in range(1000)), (100,) * 1000)
    sentence = mismatch(agreement(many), agreement(), "a", "b")
    assert sentence is not None and len(sentence) < 300 and "…" in sentence


def test_a_value_of_200_characters_is_whole_and_a_longer_one_ends_in_dots() -> None:
    for letters, shown in ((200, "x" * 200), (201, "x" * 199 + "…")):
        theirs = Agreement({"topology": "x" * letters})
        assert mismatch(Agreement({}), theirs, "a", "b") == f"the run differs: topology is absent at a and {shown} at b"


def test_no_more_than_twelve_fields_are_named() -> None:
    for count, ending in (
        (12, "f11 is absent at a and 1 at b"),
        (14, "f11 is absent at a and 1 at b; and 2 more fields"),
    ):
        sentence = mismatch(Agreement({}), Agreement({f"f{i:02}": "1" for i in range(count)}), "a", "b")
        assert sentence is not None and sentence.endswith(ending) and sentence.count(" at a and ") == 12
