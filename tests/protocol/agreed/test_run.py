"""Settings of a run: those that are refused, and values that follow from the others."""

from typing import Any

import pytest

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("neg", "must be at least two names, separated by commas"),
        ("neg,,pos", "must be at least two names, separated by commas"),
        ("neg, pos, neg", "names 'neg' twice"),
    ],
)
def test_labels_that_are_refused(labels: str, said: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        RunSettings(task="classification", labels=labels)
    assert str(refusal.value) == f"labels = {labels!r} {said}"


def test_labels_are_names_by_their_numbers() -> None:
    assert RunSettings(task="classification", labels=" very bad,good ").label_names == ("very bad", "good")
    assert RunSettings(task="classification").label_names == ()
    with pytest.raises(SettingsError, match="needs task = 'classification', not 'causal-lm'"):
        RunSettings(labels="neg, pos")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"moment_bits": 3}, "moment_bits = 3 is not one of 1, 2, 4, 8"),
        (
            {"signal": "none", "moments_every": 1},
            "moments_every = 1 says how often moment signals travel, but signal = 'none' sends none; "
            "use signal = 'mv', or moments_every = 0",
        ),
        (
            {"signal": "v", "moment_bits": 1},
            "moment_bits = 1 and v_every = 1 are about signals of both moments; "
            "use signal = 'mv', or moment_bits = 8 and v_every = 1",
        ),
        (
            {"signal": "none", "v_every": 2},
            "moment_bits = 8 and v_every = 2 are about signals of both moments; "
            "use signal = 'mv', or moment_bits = 8 and v_every = 1",
        ),
        (
            {"partners": "step", "moments_every": 1, "mix_every": 4},
            "partners = 'step' is about one neighbour at a time, and topology = 'erdos-renyi' has several; "
            "use topology = 'pairs' or 'one-peer-exponential', or partners = 'visit'",
        ),
        (
            {"partners": "step", "topology": "pairs", "mix_every": 4},
            "partners = 'step' moves moment signals that travel without parameters, and with moments_every = 0 and "
            "mix_every = 4 there are none; set moments_every to 1 or more and mix_every to more than 1, or "
            "partners = 'visit'",
        ),
        (
            {"partners": "step", "topology": "pairs", "moments_every": 1},
            "partners = 'step' moves moment signals that travel without parameters, and with moments_every = 1 and "
            "mix_every = 1 there are none; set moments_every to 1 or more and mix_every to more than 1, or "
            "partners = 'visit'",
        ),
        (
            {"discrepancy": "rms", "h_into": "m"},
            "discrepancy = 'rms' with h_into = 'm' diverges: the first moment would take up consensus that does not "
            "reach the second; use h_into = 'both', or discrepancy = 'precond'",
        ),
        (
            {"exchange": "overlap", "gamma_c": 0.6},
            "exchange = 'overlap' needs gamma_c <= 0.5, got 0.6: flows one step late on every edge diverge above that "
            "bound",
        ),
        (
            {"codec": "topk", "gamma_c": 0.5},
            "codec = 'topk' needs gamma_c <= 0.125, got 0.5: elements that were not sent yet are missing from the "
            "public copies, and above that bound gossip on the copies diverges",
        ),
        (
            {"robust": "clip", "clip_reach": 0.5},
            "clip_reach = 0.5 would ignore neighbours within the radius; give 1 or more, or 0 to ignore none",
        ),
        (
            {"robust": "clip", "learning_rate": 0.0},
            "robust = 'clip' needs a learning_rate above 0: its radius is measured in steps of that size",
        ),
        (
            {"robust": "clip", "topology": "torus", "robust_neighbours": 2},
            "robust_neighbours = 2 needs 5 neighbours, so that honest ones are in the majority, but with topology = "
            "'torus' a node has at most 4; use a denser graph, or robust_neighbours = 1",
        ),
        (
            {"robust": "clip", "topology": "pairs"},
            "robust_neighbours = 1 needs 3 neighbours, so that honest ones are in the majority, but with topology = "
            "'pairs' a node has at most 1; use a denser graph, or robust_neighbours = 0",
        ),
        (
            {"robust": "clip", "topology": "random-regular", "degree": 6, "robust_neighbours": 3},
            "robust_neighbours = 3 needs 7 neighbours, so that honest ones are in the majority, but with topology = "
            "'random-regular' a node has at most 6; use a denser graph, or robust_neighbours = 2",
        ),
        (
            {"robust": "clip", "topology": "ring"},
            "robust_neighbours = 1 needs 3 neighbours, so that honest ones are in the majority, but with topology = "
            "'ring' a node has at most 2; use a denser graph, or robust_neighbours = 0",
        ),
        (
            {"topology": "edges"},
            "topology = 'edges' needs the pairs of neighbours; give them as in edges = 'a-b b-c'",
        ),
        (
            {"epochs": 3.0},
            "epochs = 3 and epoch_sequences = 0 go together: the run is epochs * epoch_sequences sequences long on "
            "every node; set both, or set both to 0",
        ),
        (
            {"epoch_sequences": 100},
            "epochs = 0 and epoch_sequences = 100 go together: the run is epochs * epoch_sequences sequences long on "
            "every node; set both, or set both to 0",
        ),
        (
            {"lr_warmup": 0.1, "lr_warmup_steps": 5},
            "lr_warmup = 0.1 and lr_warmup_steps = 5 both say how long the step size rises; set one of them to 0",
        ),
        (
            {"dropout": -0.5},
            "dropout = -0.5 is no probability; give one from 0, or -1 for those in the model's config",
        ),
        (
            {"weights": "tokens"},
            "weights = 'tokens' needs weight_tokens: a node's share is its tokens divided by that number; set it to "
            "the tokens of an ordinary node, which `deca-node doctor --load` says, or use weights = 'equal'",
        ),
        ({"weight_decay": -0.1}, "weight_decay = -0.1 is below its smallest value, 0.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm = -1.0 is below its smallest value, 0.0"),
        ({"head_lr_scale": 0.0}, "head_lr_scale = 0.0 is below its smallest value, 0.001"),
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
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("h_into", ["both", "v"])
def test_rms_is_taken_where_the_second_moment_sees_it(h_into: str) -> None:
    assert RunSettings(discrepancy="rms", h_into=h_into).h_into == h_into


@pytest.mark.parametrize(
    ("exchange", "gamma_c", "share"),
    [("lockstep", 0.0, 1.0), ("overlap", 0.0, 0.5), ("lockstep", 0.7, 0.7), ("overlap", 0.5, 0.5)],
)
def test_flow_share(exchange: str, gamma_c: float, share: float) -> None:
    """gamma_c = 0 means the largest stable value of the exchange mode."""
    assert RunSettings(exchange=exchange, gamma_c=gamma_c).flow_share == share


def test_flow_share_of_topk() -> None:
    """A value that is stable for dense codecs is not for a codec that sends a sixteenth of the elements."""
    shares = [RunSettings(codec="topk", exchange=exchange).flow_share for exchange in ("lockstep", "overlap")]
    assert shares == [0.125, 0.125]
    assert RunSettings(codec="topk", gamma_c=0.05).flow_share == 0.05


@pytest.mark.parametrize(
    ("epochs", "sequences", "rounds"),
    [(1.0, 96, 1), (1.0, 97, 2), (3.0, 100, 4), (0.1, 30, 1), (0.1, 960 * 3, 3), (100.0, 96, 100)],
)
def test_epochs_are_the_fewest_rounds_that_come_to_them(epochs: float, sequences: int, rounds: int) -> None:
    """A round of 4 blocks, 3 steps and 8 sequences is 96 sequences."""
    settings = RunSettings(epochs=epochs, epoch_sequences=sequences, inner_steps=3, batch_size=8, rounds=7)
    assert settings.rounds_of(blocks=4) == rounds
    assert RunSettings(rounds=7).rounds_of(blocks=4) == 7


@pytest.mark.parametrize(
    "settings",
    [
        {"robust": "clip", "clip_reach": 0.0},
        {"robust": "clip", "clip_reach": 1.0},
        {"robust": "none", "clip_reach": 0.5, "learning_rate": 0.0, "topology": "ring", "robust_neighbours": 9},
        {"robust": "clip", "topology": "torus", "robust_neighbours": 1},
        {"robust": "clip", "topology": "ring", "robust_neighbours": 0},
        {"robust": "clip", "topology": "pairs", "robust_neighbours": 0},
        {"robust": "clip", "topology": "random-regular", "degree": 5, "robust_neighbours": 2},
        {"robust": "clip", "topology": "erdos-renyi", "robust_neighbours": 50},
        {"exchange": "overlap", "gamma_c": 0.5},
        {"codec": "topk", "gamma_c": 0.125},
        {"dropout": -1.0},
        {"dropout": 0.0},
        {"signal": "mv", "moment_bits": 1, "v_every": 3},
        {"partners": "step", "topology": "pairs", "moments_every": 1, "mix_every": 2},
        {"discrepancy": "rms", "h_into": "both"},
        {"discrepancy": "precond", "h_into": "m"},
    ],
)
def test_settings_at_the_bounds_are_accepted(settings: dict[str, Any]) -> None:
    RunSettings(**settings)
