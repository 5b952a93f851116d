"""Reading a manifest gives the manifest that was written, or a StorageError for any other bytes."""

import contextlib
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError
from deca_node.storage import manifest as m
from deca_node.storage.durable import write_file

POSITION = Step(12, 3)
AGREEMENT = Agreement({"run_name": "deca", "model": "ab" * 32})


def stored(directory: Path, name: str) -> m.StoredFile:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return m.StoredFile(name, *write_file(path, [name.encode()]))


def some(directory: Path, position: Step = POSITION) -> m.Manifest:
    """A manifest in its folder, with all its files."""
    last = position.activation - 1
    block = m.StoredBlock(
        last,
        stored(directory, m.value_name("layers.3", last)),
        stored(directory, m.delta_name("layers.3", last)),
    )
    folder = m.folder_of(directory, position)
    folder.mkdir(parents=True)
    active = None
    if position.inner:
        file = stored(directory, str((folder / m.ACTIVE).relative_to(directory)))
        active = m.StoredActive("head", file, (3, 1 - 0.9**3, 0.1 + 0.2))
    made = m.Manifest(
        AGREEMENT, position, {"layers.3": block}, active, m.DataPlace(1, 4, 7), {"cpu": "AAAA"}, 1_790_000_000.25
    )
    m.write_manifest(folder, made)
    return made


class Notes(list[tuple[str, str]]):
    def __call__(self, sentence: str, level: str = "info") -> None:
        self.append((level, sentence))


@pytest.mark.parametrize("position", [Step(12, 0), Step(12, 3), Step(1_234_567, 100_000)])
def test_what_was_written_is_read(position: Step, tmp_path: Path) -> None:
    made = some(tmp_path, position)
    assert m.newest_manifest(tmp_path) == made
    assert m.newest_sound(tmp_path, AGREEMENT, Notes()) == made


def test_the_layout_is_what_other_readers_expect(tmp_path: Path) -> None:
    some(tmp_path)
    content = json.loads((tmp_path / "checkpoints/000012-00003/manifest.json").read_text())
    assert content["format"] == 1
    assert content["position"] == [12, 3]
    assert content["fingerprint"] == AGREEMENT.fingerprint
    assert content["blocks"]["layers.3"]["activation"] == 11
    assert content["blocks"]["layers.3"]["delta"]["file"] == "blocks/layers.3@000011.delta"
    assert set(content["blocks"]["layers.3"]["value"]) == {"file", "bytes", "sha256"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one checkpoint, whose manifest a test may replace."""
    directory = tmp_path_factory.mktemp("manifests")
    some(directory)
    return m.folder_of(directory, POSITION)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest that was written there."""
    directory = tmp_path_factory.mktemp("sound")
    some(directory)
    return (m.folder_of(directory, POSITION) / m.MANIFEST).read_bytes()


@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes, written: Path) -> None:
    refused(written, data)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_manifest_cut_short_is_refused(share: float, written: Path, sound: bytes) -> None:
    refused(written, sound[: int(share * len(sound))])


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_means_nothing(place: int, bit: int, written: Path, sound: bytes) -> None:
    """A changed bit in the white space between parts of the JSON does not change its meaning."""
    whole = bytearray(sound)
    whole[place % len(whole)] ^= 1 << bit
    before = m._parse(sound, written)
    (written / m.MANIFEST).write_bytes(whole)
    with contextlib.suppress(StorageError):
        assert m.read_manifest(written) == before


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(value=anything, where=st.integers(0, 10**6))
def test_any_part_replaced_by_anything_is_refused_or_read(value: Any, where: int, written: Path, sound: bytes) -> None:
    """Even under a correct digest the parts are checked one by one."""
    content = json.loads(sound)
    places = sorted(paths_in(content), key=repr)
    changed = put(content, places[where % len(places)], value)
    changed["digest"] = m._digest(changed)
    (written / m.MANIFEST).write_text(json.dumps(changed))
    try:
        found = m.read_manifest(written)
    except StorageError:
        return
    assert all(".." not in stored.file and not stored.file.startswith("/") for stored in found.files)


def refused(folder: Path, data: bytes) -> None:
    (folder / m.MANIFEST).write_bytes(data)
    with pytest.raises(StorageError, match=r"manifest\.json is damaged"):
        m.read_manifest(folder)


def paths_in(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every part of a JSON value."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in parts for found in [(*path, key), *paths_in(value, (*path, key))]]


def put(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(content)
    part = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return changed


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": NaN}', '{"format": 1e999}', "9" * 10_000, '"text"', "{}"])
def test_hostile_json_is_refused(text: str, written: Path) -> None:
    refused(written, text.encode())


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    made = some(tmp_path)
    block = made.blocks["layers.3"]
    outside = replace(block, value=replace(block.value, file="../secret"))
    for blocks in ({"layers.3": outside}, {"../layers.3": block}, {"": block}, {"layers.4": block}):
        m.write_manifest(m.folder_of(tmp_path, made.position), replace(made, blocks=blocks))
        with pytest.raises(StorageError, match="damaged"):
            m.read_manifest(m.folder_of(tmp_path, made.position))


def test_a_manifest_in_another_folder_is_refused(tmp_path: Path) -> None:
    some(tmp_path)
    folder = m.folder_of(tmp_path, POSITION)
    folder.rename(folder.with_name("000013-00003"))
    with pytest.raises(StorageError, match="its position is 12-3"):
        m.newest_sound(tmp_path, AGREEMENT, Notes())


def test_the_newest_comes_first_whatever_the_digits(tmp_path: Path) -> None:
    for position in (Step(999_999, 0), Step(1_000_000, 0), Step(2, 99_999), Step(2, 100_000)):
        some(tmp_path, position)
    found = [path.name for path in m.checkpoints(tmp_path)]
    assert found == ["1000000-00000", "999999-00000", "000002-100000", "000002-99999"]


def test_where_there_never_was_a_checkpoint_none_is_found(tmp_path: Path) -> None:
    assert m.newest_sound(tmp_path, AGREEMENT, Notes()) is None
    assert m.newest_manifest(tmp_path) is None
    (tmp_path / m.CHECKPOINTS).mkdir()
    (tmp_path / m.CHECKPOINTS / "notes of mine").mkdir()
    assert m.newest_sound(tmp_path, AGREEMENT, Notes()) is None


def test_a_damaged_one_is_named_before_the_older_is_used(tmp_path: Path) -> None:
    older = some(tmp_path, Step(11, 0))
    newer = some(tmp_path, Step(12, 3))
    assert newer.active
    (tmp_path / newer.active.file.file).write_bytes(b"x")
    notes = Notes()
    assert m.newest_sound(tmp_path, AGREEMENT, notes) == older
    ((level, sentence),) = notes
    assert level == "warning"
    assert "000012-00003" in sentence
    assert "1 bytes instead of" in sentence
    assert (tmp_path / m.CHECKPOINTS / "000012-00003.damaged").is_dir()


def test_pruning_keeps_two_and_what_they_name(tmp_path: Path) -> None:
    for activation in range(10, 14):
        some(tmp_path, Step(activation, 0))
    (tmp_path / m.BLOCKS / "layers.3@000007.delta.partial").write_bytes(b"")
    m.prune(tmp_path)
    assert [path.name for path in m.checkpoints(tmp_path)] == ["000013-00000", "000012-00000"]
    assert {path.name.split("@")[1][:6] for path in (tmp_path / m.BLOCKS).iterdir()} == {"000012", "000011"}


def test_pruning_waits_while_nobody_knows_what_is_named(tmp_path: Path) -> None:
    for activation in range(10, 14):
        some(tmp_path, Step(activation, 0))
    (m.folder_of(tmp_path, Step(12, 0)) / m.MANIFEST).write_bytes(b"{}")
    m.prune(tmp_path)
    assert len(m.checkpoints(tmp_path)) == 4
    assert len(list((tmp_path / m.BLOCKS).iterdir())) == 8
