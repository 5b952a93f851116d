"""Which run a node takes part in: what makes two of them one run, and the sentence where they differ."""

from dataclasses import replace

from deca_node.protocol.agreed.identity import RunIdentity, foreign, identity_of
from deca_node.protocol.agreed.run import RunSettings

OURS = identity_of(RunSettings(run_name="x", rounds=3))


def test_nodes_with_the_same_settings_are_of_one_run() -> None:
    assert foreign(OURS, identity_of(RunSettings(run_name="x", rounds=3)), "a", "b") is None


def test_names_that_travel_have_a_limit() -> None:
    identity = identity_of(RunSettings(run_name="x" * 200), "y" * 200)
    assert (identity.name, identity.federation) == ("x" * 128, "y" * 128)


def test_a_run_that_is_not_told_is_no_other_run() -> None:
    """Nodes of versions before the field say nothing."""
    for unknown in (None, RunIdentity("", "")):
        assert foreign(OURS, unknown, "a", "b") is None
    assert foreign(None, OURS, "a", "b") is None


def test_the_sentence_names_every_setting_that_differs() -> None:
    theirs = identity_of(RunSettings(run_name="y", rounds=4))
    assert (
        foreign(OURS, theirs, "a", "b") == "the run differs: rounds is 3 at a and 4 at b; run_name is x at a and y at b"
    )


def test_without_the_settings_the_sentence_names_the_run_or_its_fingerprint() -> None:
    other_name = replace(identity_of(RunSettings(run_name="y")), settings={})
    assert foreign(OURS, other_name, "a", "b") == "the run differs: run_name is x at a and y at b"
    other_settings = replace(identity_of(RunSettings(run_name="x", rounds=4)), settings={})
    sentence = foreign(OURS, other_settings, "a", "b")
    differ = f"{OURS.fingerprint} at a and {other_settings.fingerprint} at b"
    assert sentence == f"the run differs: the fingerprint of its settings is {differ}"


def test_two_federations_are_two_runs_whatever_the_settings_say() -> None:
    ours, theirs = replace(OURS, federation="beds.example"), replace(OURS, federation="wards.example")
    sentence = foreign(ours, theirs, "a", "b")
    assert sentence == "the run differs: the federation is beds.example at a and wards.example at b"
    assert foreign(ours, OURS, "a", "b") is None, "a node without TLS has none to say"
