"""Options of a trainer: devices that contradict each other, columns of the data, a node's own dice."""

import pytest

from deca_node.protocol import refusals
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.options import check_where, columns_of, devices_of, own_seed

SHARDED = (
    "parallel = 'shard' with dp_noise: each record's gradient is needed whole at one rank, and a sharded model sums "
    "over the ranks at once; set parallel = 'data'"
)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3", "mps"])
def test_one_device_may_be_named(device: str) -> None:
    check_where(device, "", "shard", 0, "", private=False)
    check_where("auto", "cpu*2", "data", 2, "10.0.0.1", private=True)


@pytest.mark.parametrize(
    ("device", "devices", "parallel", "private", "sentence"),
    [
        ("gpu", "", "auto", False, "device = 'gpu' is not auto, cpu, cuda, cuda:N or mps"),
        ("cuda:x", "", "auto", False, "device = 'cuda:x' is not auto, cpu, cuda, cuda:N or mps"),
        ("cpu", "3", "auto", False, "device = 'cpu' names one device and devices = '3' several; leave one out"),
        ("auto", "gpu", "auto", False, None),
        ("auto", "3", "shard", True, SHARDED),
    ],
)
def test_devices_that_contradict_each_other_are_refused(
    device: str, devices: str, parallel: str, private: bool, sentence: str | None
) -> None:
    with pytest.raises(SettingsError) as refusal:
        check_where(device, devices, parallel, 0, "", private=private)
    told = "is not auto, a number of ranks, cpu*N, cuda, cuda*N, cuda:N,cuda:M,... or mps"
    assert str(refusal.value) == (sentence or f"devices = {devices!r} {told}")


@pytest.mark.parametrize(
    ("device", "devices", "elsewhere", "at", "sentence"),
    [
        ("auto", "", 2, "", "ranks_elsewhere and ranks_at belong together: set both, or none of them"),
        ("auto", "", 0, "10.0.0.1", "ranks_elsewhere and ranks_at belong together: set both, or none of them"),
        ("mps", "", 1, "10.0.0.1", "mps takes one rank: leave ranks_elsewhere out"),
        ("auto", "mps", 1, "10.0.0.1", "mps takes one rank: leave ranks_elsewhere out"),
    ],
)
def test_ranks_elsewhere_need_an_address_and_no_mps(
    device: str, devices: str, elsewhere: int, at: str, sentence: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        check_where(device, devices, "auto", elsewhere, at, private=False)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        ("cuda:1,cuda:1", "names a card twice; every rank needs a card of its own"),
        ("cpu*0", ": a trainer has 1 to 64 ranks"),
        ("65", ": a trainer has 1 to 64 ranks"),
        ("mps*2", ": torch sees one MPS device, and it takes one rank"),
    ],
)
def test_ranks_that_cannot_be_are_refused(devices: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        devices_of(devices)
    assert str(refusal.value) == f"devices = {devices!r}{'' if sentence[0] == ':' else ' '}{sentence}"


def test_ranks_at_the_bounds() -> None:
    assert [devices_of(text).count for text in ("1", "cpu*64", "mps*1", "auto*2", "cuda")] == [1, 64, 1, 2, 0]


def test_columns_are_read_by_name() -> None:
    assert columns_of("") == columns_of(" , ") == {}
    assert columns_of(" text = body,label=kind = 2 ") == {"text": "body", "label": "kind = 2"}


@pytest.mark.parametrize("part", ["text", "text=", "=body", "=", "text=title"])
def test_columns_that_are_no_pairs_or_named_twice_are_refused(part: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        columns_of(f"text=body, {part}")
    assert str(refusal.value) == (
        f"columns has {part!r}; write NAME=COLUMN, separated by commas, each name once, as in text=body"
    )


def test_own_dice_follow_from_the_run_and_the_name() -> None:
    """The held-out records hang on them, so that they stay the same over versions."""
    seeds = [own_seed(RunSettings(seed=seed), name) for seed, name in ((0, "a"), (1, "a"), (0, "b"))]
    assert seeds == [1853948073, 1251929026, 1159560753]


def test_an_offence_is_a_reason_that_counts() -> None:
    assert refusals._offence("bytes that lie") == refusals.Reason("bytes that lie", offence=True)
