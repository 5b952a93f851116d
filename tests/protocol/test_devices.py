"""The setting ``devices``: what it may say, and what is refused."""

import pytest

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.options import Devices, devices_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("auto", Devices("auto")),
        ("3", Devices("auto", 3)),
        ("cpu*2", Devices("cpu", 2)),
        ("cuda", Devices("cuda")),
        ("cuda * 4", Devices("cuda", 4)),
        ("cuda:1, cuda:3", Devices("cuda", 2, (1, 3))),
        ("mps", Devices("mps")),
    ],
)
def test_what_it_may_say(text: str, found: Devices) -> None:
    assert devices_of(text) == found
    assert NodeSettings(devices=text).devices == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpu", "is not auto, a number of ranks"),
        ("cuda:0,cpu", "is not auto"),
        ("cuda:0,cuda:0", "names a card twice"),
        ("cpu*0", "1 to 64 ranks"),
        ("65", "1 to 64 ranks"),
        ("mps*2", "one MPS device"),
    ],
)
def test_what_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence.replace("*", r"\*")):
        NodeSettings(devices=text)


def test_one_device_and_several_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="leave one out"):
        NodeSettings(device="cpu", devices="cpu*2")


def test_private_gradients_are_not_sharded() -> None:
    with pytest.raises(SettingsError, match="parallel = 'shard' with dp_noise"):
        NodeSettings(devices="cpu*2", parallel="shard", dp_noise=1.0)
    with pytest.raises(SettingsError, match="parallel"):
        NodeSettings(parallel="pipeline")
