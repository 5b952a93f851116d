"""Which run a node takes part in, as far as the node knows it from its start.

The settings are known before the model is loaded, so their fingerprint goes into every control greeting and every
membership packet. Facts of the model are compared later, in the Hello of an exchange stream
(:mod:`deca_node.protocol.agreed.agreement`). A node of an earlier version says nothing here, and is let in as before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deca_node.protocol.agreed.agreement import Agreement, mismatch, settings_fields
from deca_node.protocol.agreed.run import RunSettings

FINGERPRINT_DIGITS = 32
"""Hex digits of the fingerprint: the first 16 bytes of a SHA-256."""
WORDS_MAX = 128
"""The most characters of the run's name, and of the federation's, that travel."""


@dataclass(frozen=True)
class RunIdentity:
    """The run's name, the fingerprint of its settings in hex, and the federation whose certificates the node trusts
    (empty in plaintext). ``settings`` are the fields behind the fingerprint; empty where only the fingerprint is
    known."""

    name: str
    fingerprint: str
    federation: str = ""
    settings: Mapping[str, str] = field(default_factory=dict, compare=False)


def identity_of(settings: RunSettings, federation: str = "") -> RunIdentity:
    """The identity of the run with these settings."""
    fields = settings_fields(settings)
    fingerprint = Agreement(fields).fingerprint[:FINGERPRINT_DIGITS]
    return RunIdentity(settings.run_name[:WORDS_MAX], fingerprint, federation[:WORDS_MAX], fields)


def foreign(ours: RunIdentity | None, theirs: RunIdentity | None, name: str, peer: str) -> str | None:
    """A sentence that says how the run of ``peer`` differs from that of ``name``. None where both are of one run, and
    where either run is unknown."""
    if ours is None or theirs is None:
        return None
    if ours.federation and theirs.federation and ours.federation != theirs.federation:
        return _differs("the federation", ours.federation, theirs.federation, name, peer)
    if not theirs.fingerprint or theirs.fingerprint == ours.fingerprint:
        return None
    named = mismatch(Agreement(ours.settings), Agreement(theirs.settings), name, peer) if theirs.settings else None
    if named is not None:
        return named
    if ours.name != theirs.name:
        return _differs("run_name", ours.name, theirs.name, name, peer)
    return _differs("the fingerprint of its settings", ours.fingerprint, theirs.fingerprint, name, peer)


def _differs(what: str, one: str, other: str, name: str, peer: str) -> str:
    return f"the run differs: {what} is {one} at {name} and {other} at {peer}"
