"""Files and folders are whole or absent: after an error, and after a crash at any call to the operating system."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.storage.durable import publish_file, repair_folder, replace_folder, sum_file, tidy, write_file
from tests.storage.failing_disk import Disk, Kill, KilledError

EARLIER = {"config": b"earlier", "only-earlier": b"earlier"}
NEW = {"config": b"new", "inner/only-new": b"new", "manifest": b"new"}


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        if not path.parent.is_dir():
            path.parent.mkdir()
        path.write_bytes(content)


def content(folder: Path) -> dict[str, bytes] | None:
    """All files of a folder by name; None where there is no folder."""
    if not folder.exists():
        return None
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replace(folder: Path) -> None:
    with replace_folder(folder) as aside:
        fill(aside, NEW)
        write_file(aside / "manifest", [b"new"])


def beside(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path != folder]


def places(tmp_path: Path, earlier: dict[str, bytes] | None) -> Iterator[Path]:
    """Folders of the same name, each in a parent of its own, with the earlier files in them."""
    for number in range(1000):
        folder = tmp_path / str(number) / "model"
        folder.parent.mkdir()
        if earlier is not None:
            folder.mkdir()
            fill(folder, earlier)
        yield folder


# --- files ------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made = write_file(path, [b"one", memoryview(b" and two")])
    assert made == sum_file(path)
    assert path.read_bytes() == b"one and two"

    def broken() -> Iterator[bytes]:
        yield b"three"
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write_file(path, broken())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"one and two"


def test_a_file_of_a_killed_process_is_the_earlier_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = tmp_path / "file", []
    for call in range(100):
        path.write_bytes(b"earlier")
        kill = Kill(call)
        with kill.watched(monkeypatch), contextlib.suppress(KilledError):
            write_file(path, [b"new"])
        found.append(path.read_bytes())
        tidy(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        if not kill.failed:
            break
    assert set(found) == {b"earlier", b"new"}
    assert found == sorted(found)


def test_a_published_file_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside, path = tmp_path / "file.part", tmp_path / "file"
    aside.write_bytes(b"all of it")
    with Disk(1, only_once=True).watched(monkeypatch), pytest.raises(OSError, match="No space"):
        publish_file(aside, path)
    assert [p.name for p in tmp_path.iterdir()] == ["file.part"]
    publish_file(aside, path)
    assert path.read_bytes() == b"all of it"
    assert not aside.exists()


# --- folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("earlier", [None, {}, EARLIER], ids=["none", "empty", "earlier"])
def test_a_folder_is_replaced_whole(earlier: dict[str, bytes] | None, tmp_path: Path) -> None:
    folder = next(places(tmp_path, earlier))
    replace(folder)
    assert content(folder) == NEW
    assert beside(folder) == []


@pytest.mark.parametrize("earlier", [None, {}, EARLIER], ids=["none", "empty", "earlier"])
def test_whatever_call_fails_the_earlier_folder_is_there_and_nothing_beside_it(
    earlier: dict[str, bytes] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call, folder in enumerate(places(tmp_path, earlier)):
        disk = Disk(call, only_once=True)
        failed = False
        with disk.watched(monkeypatch):
            try:
                replace(folder)
            except OSError:
                failed = True
        assert content(folder) == (earlier if failed else NEW)
        # Only what is left of the earlier folder may stay, until the next repair.
        assert not (failed and beside(folder))
        repair_folder(folder)
        assert beside(folder) == []
        if not disk.failed:
            break
    assert call > 15
    assert not failed


@pytest.mark.parametrize("earlier", [None, EARLIER], ids=["none", "earlier"])
def test_a_process_killed_at_any_call_leaves_a_sound_folder(
    earlier: dict[str, bytes] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repair is killed at each of its calls as well, and then runs again."""
    found = []
    for folder in places(tmp_path, earlier):
        kill = Kill(len(found))
        with kill.watched(monkeypatch), contextlib.suppress(KilledError):
            replace(folder)
        for repair_call in range(100):
            repair = Kill(repair_call)
            with repair.watched(monkeypatch), contextlib.suppress(KilledError):
                repair_folder(folder)
            if not repair.failed:
                break
        assert beside(folder) == []
        found.append(content(folder))
        if not kill.failed:
            break
    assert all(one in (earlier, NEW) for one in found)
    since = found.index(NEW)
    assert since > 15
    assert found == [earlier] * since + [NEW] * (len(found) - since)


def test_a_folder_may_be_replaced_without_a_repair_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call, folder in enumerate(places(tmp_path, EARLIER)):
        kill = Kill(call)
        with kill.watched(monkeypatch), contextlib.suppress(KilledError):
            replace(folder)
        replace(folder)
        assert content(folder) == NEW
        assert beside(folder) == []
        if not kill.failed:
            break


def test_a_failure_of_the_body_leaves_the_earlier_folder(tmp_path: Path) -> None:
    folder = next(places(tmp_path, EARLIER))

    def broken() -> None:
        with replace_folder(folder) as aside:
            fill(aside, NEW)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        broken()
    assert content(folder) == EARLIER
    assert beside(folder) == []


def test_folders_of_the_user_with_similar_names_are_left_alone(tmp_path: Path) -> None:
    mine = [tmp_path / "model.old", tmp_path / "model.partial"]
    for folder in mine:
        folder.mkdir()
        fill(folder, EARLIER)
    for _ in range(2):
        replace(tmp_path / "model")
    assert [content(folder) for folder in mine] == [EARLIER, EARLIER]


def test_what_earlier_releases_left_is_tidied(tmp_path: Path) -> None:
    """They wrote NAME.old and NAME.partial without the leading dot."""
    for name in ("a.old", "a.partial", "b", "b.old"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, EARLIER if name in ("a.old", "b") else NEW)
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert content(tmp_path / "a") == content(tmp_path / "b") == EARLIER
