"""Sources of data as a person writes them."""

from pathlib import Path

import pytest

from deca_node.protocol.errors import SettingsError
from deca_node.storage.data_sources import DataSource, HubSet, data_sources, expanded, hub_set


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("notes.jsonl", [("notes.jsonl", 1)]),
        ("a.jsonl, b.parquet*2.0", [("a.jsonl", 1), ("b.parquet", 2)]),
        ("a.jsonl*0.5,/data/b*3", [("a.jsonl", 0.5), ("/data/b", 3)]),
        ("hf://owner/name", [("hf://owner/name", 1)]),
        (
            "hf://owner/name:train@v1.0 * .25, hf://o/n/sub@refs/pr/1",
            [("hf://owner/name:train@v1.0", 0.25), ("hf://o/n/sub@refs/pr/1", 1)],
        ),
        ("", [("", 1)]),
        ("a*b.jsonl", [("a*b.jsonl", 1)]),
    ],
)
def test_sources_have_places_and_weights(text: str, expected: list[tuple[str, float]]) -> None:
    assert data_sources(text) == tuple(DataSource(*one) for one in expected)


@pytest.mark.parametrize("name", ["one, two", "a*2", "a, b*3"])
def test_a_path_that_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    assert data_sources(name) == (DataSource(name),)
    assert data_sources(f"a*2, {tmp_path}/other")[0].place == ("a*2" if name == "a*2" else "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.jsonl, a.jsonl", r"data names a\.jsonl twice; name it once, with a weight, as in a\.jsonl\*2"),
        ("a.jsonl,,b", "data has a comma with nothing beside it"),
        ("a.jsonl*0", r"the weight of a\.jsonl in data is 0; weights are above 0 and at most 1000"),
        ("a.jsonl*1001", "the weight of a.jsonl in data is 1001"),
        ("hf://name", "data = hf://name is no address of a data set; write hf://OWNER/NAME"),
        ("a, hf://owner/name:tr ain", "is no address of a data set"),
    ],
)
def test_malformed_sources_are_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        data_sources(text)


def test_a_long_list_is_no_path() -> None:
    assert len(data_sources(", ".join(f"{number:03}.jsonl" for number in range(500)))) == 500


def test_addresses_of_the_hub_have_parts() -> None:
    assert hub_set("hf://owner/name") == HubSet("owner/name")
    assert hub_set("hf://owner/na.me/sub:test@0123ab") == HubSet("owner/na.me", "sub", "test", "0123ab")


def test_the_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/eva")
    assert expanded("~/a.jsonl") == "/home/eva/a.jsonl"
    assert expanded("~/a.jsonl*2, hf://o/n*0.1, b") == "/home/eva/a.jsonl*2, hf://o/n*0.1, b"
    assert data_sources(expanded("~/a*2.5"))[0] == DataSource("/home/eva/a", 2.5)
