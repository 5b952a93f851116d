"""Settings of a run that are valid one by one and make no sense together, each refused by name.

``run`` is always the RunSettings, whose module imports this one.
"""

from collections.abc import Sequence
from typing import Any

from deca_node.protocol.errors import SettingsError


def check_moments(run: Any, bits: Sequence[int]) -> None:
    """Refuse settings of moment signals that say nothing together. ``bits`` are the numbers that may be chosen."""
    if run.moment_bits not in bits:
        raise SettingsError(f"moment_bits = {run.moment_bits} is not one of {', '.join(map(str, bits))}")
    if run.moments_every and run.signal == "none":
        raise SettingsError(
            f"moments_every = {run.moments_every} says how often moment signals travel, but signal = 'none' sends "
            "none; use signal = 'mv', or moments_every = 0"
        )
    if run.signal != "mv" and (run.moment_bits, run.v_every) != (8, 1):
        raise SettingsError(
            f"moment_bits = {run.moment_bits} and v_every = {run.v_every} are about signals of both moments; use "
            f"signal = 'mv', or moment_bits = 8 and v_every = 1"
        )


def check_partners(run: Any, matchings: Sequence[str]) -> None:
    """Refuse partners that change where there are none, or nothing that could travel to them alone."""
    if run.partners == "visit":
        return
    if run.topology not in matchings:
        raise SettingsError(
            f"partners = 'step' is about one neighbour at a time, and topology = {run.topology!r} has several; use "
            f"topology = {' or '.join(map(repr, matchings))}, or partners = 'visit'"
        )
    if not run.moments_every or run.mix_every == 1:
        raise SettingsError(
            f"partners = 'step' moves moment signals that travel without parameters, and with moments_every = "
            f"{run.moments_every} and mix_every = {run.mix_every} there are none; set moments_every to 1 or more and "
            "mix_every to more than 1, or partners = 'visit'"
        )


def check_weights(run: Any) -> None:
    """Refuse shares by tokens without a measure for them."""
    if run.weights == "tokens" and not run.weight_tokens:
        raise SettingsError(
            "weights = 'tokens' needs weight_tokens: a node's share is its tokens divided by that number; set it to "
            "the tokens of an ordinary node, which `deca-node doctor --load` says, or use weights = 'equal'"
        )


def check_values(run: Any, own_dropout: float) -> None:
    """Refuse a graph without edges, two lengths of one thing, half of what says how long the run is, and a dropout that
    is neither a probability nor ``own_dropout``, which stands for the model's."""
    if run.topology == "edges" and not run.edges.strip():
        raise SettingsError("topology = 'edges' needs the pairs of neighbours; give them as in edges = 'a-b b-c'")
    if run.lr_warmup and run.lr_warmup_steps:
        raise SettingsError(
            f"lr_warmup = {run.lr_warmup} and lr_warmup_steps = {run.lr_warmup_steps} both say how long the step "
            "size rises; set one of them to 0"
        )
    if bool(run.epochs) != bool(run.epoch_sequences):
        raise SettingsError(
            f"epochs = {run.epochs:g} and epoch_sequences = {run.epoch_sequences} go together: the run is "
            "epochs * epoch_sequences sequences long on every node; set both, or set both to 0"
        )
    if own_dropout < run.dropout < 0.0:
        raise SettingsError(
            f"dropout = {run.dropout:g} is no probability; give one from 0, or -1 for those in the model's config"
        )


def check_labels(run: Any) -> None:
    """Refuse labels without a task, a single label, and a name given twice."""
    names = run.label_names
    if not names:
        return
    if run.task != "classification":
        raise SettingsError(f"labels = {run.labels!r} needs task = 'classification', not {run.task!r}")
    if len(names) < 2 or "" in names:
        raise SettingsError(f"labels = {run.labels!r} must be at least two names, separated by commas")
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise SettingsError(f"labels = {run.labels!r} names {twice[0]!r} twice")


def check_clip(run: Any, matchings: Sequence[str]) -> None:
    """Refuse robust mixing that cannot work. In the graphs of ``matchings`` a node has one neighbour."""
    if 0.0 < run.clip_reach < 1.0:
        raise SettingsError(
            f"clip_reach = {run.clip_reach} would ignore neighbours within the radius; give 1 or more, or 0 to "
            "ignore none"
        )
    if not run.learning_rate:
        raise SettingsError(
            "robust = 'clip' needs a learning_rate above 0: its radius is measured in steps of that size"
        )
    known = {"ring": 2, "torus": 4, "random-regular": run.degree, **dict.fromkeys(matchings, 1)}
    degree, f = known.get(run.topology), run.robust_neighbours
    if degree is not None and degree < 2 * f + 1:
        raise SettingsError(
            f"robust_neighbours = {f} needs {2 * f + 1} neighbours, so that honest ones are in the majority, but "
            f"with topology = {run.topology!r} a node has at most {degree}; use a denser graph, or "
            f"robust_neighbours = {(degree - 1) // 2}"
        )
