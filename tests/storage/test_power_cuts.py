"""Power cuts: the recorder finds planted faults, and the ways in which this package writes have none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deca_node.storage.durable import make_folder, publish_file, repair_folder, replace_folder, tidy, write_file
from tests.storage.power_cuts import Recorder, State

EARLIER, NEW = b"earlier, and longer than what follows", b"new"


def recorded(folder: Path, work: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """What crashes could leave of ``work`` and after it; the states after it know that it was done."""
    recorder = Recorder(folder)
    with recorder.watching(monkeypatch):
        work(folder)
        recorder.say("done")
    return list(recorder.states.values())


def left(states: list[State], done: bool) -> set[bytes | str | None]:
    """The contents of the file ``a`` before or after the work was done; "absent" where there is none."""
    return {state.tree.get("a", "absent") for state in states if bool(state.said) == done}


# --- planted faults ---------------------------------------------------------------------------------


def in_place(folder: Path) -> None:
    (folder / "a").write_bytes(NEW)


def without_flushing(folder: Path) -> None:
    (folder / "b").write_bytes(NEW)
    (folder / "b").replace(folder / "a")


def without_its_name(folder: Path) -> None:
    descriptor = os.open(folder / "b", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, NEW)
    os.fsync(descriptor)
    os.close(descriptor)
    os.replace(folder / "b", folder / "a")  # noqa: PTH105


@pytest.mark.parametrize(
    ("work", "broken"),
    [
        (in_place, {b"", b"n", b"new"}),
        (without_flushing, {b"", b"n"}),
        (without_its_name, {EARLIER}),
    ],
)
def test_a_careless_writer_is_found(
    work: Callable[[Path], None], broken: set[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(EARLIER)
    assert broken & left(recorded(tmp_path, work, monkeypatch), done=True) - {NEW}


def test_a_folder_whose_name_was_not_flushed_may_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path) -> None:
        (folder / "one" / "two").mkdir(parents=True)
        write_file(folder / "one" / "two" / "a", [NEW])

    states = [state for state in recorded(tmp_path, work, monkeypatch) if state.said]
    assert {"one/two/a" in state.tree for state in states} == {True, False}
    assert any("one" in state.tree and "one/two" not in state.tree for state in states)


# --- the package's own ------------------------------------------------------------------------------


def published(folder: Path) -> None:
    (folder / "b").write_bytes(NEW)
    publish_file(folder / "b", folder / "a")


def written(folder: Path) -> None:
    write_file(folder / "a", [NEW[:2], NEW[2:]])


@pytest.mark.parametrize("work", [written, published])
@pytest.mark.parametrize("earlier", [EARLIER, None])
def test_a_file_is_the_earlier_one_until_it_is_the_new_one_for_good(
    work: Callable[[Path], None], earlier: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier is not None:
        (tmp_path / "a").write_bytes(earlier)
    states = recorded(tmp_path, work, monkeypatch)
    assert left(states, done=False) == {"absent" if earlier is None else earlier, NEW}
    assert left(states, done=True) == {NEW}


def test_a_new_folder_is_there_for_good_with_those_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = recorded(tmp_path, lambda folder: make_folder(folder / "one" / "two"), monkeypatch)
    assert all("one/two" in state.tree for state in states if state.said)


@pytest.mark.parametrize("repair", [repair_folder, lambda folder: tidy(folder.parent)], ids=["repair", "tidy"])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_folder_is_the_earlier_one_until_it_is_the_new_one_for_good(
    repair: Callable[[Path], None], earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path, content: bytes) -> None:
        with replace_folder(folder) as aside:
            for name in ("one", "two"):
                (aside / name).write_bytes(content)

    home = tmp_path / "home"
    home.mkdir()
    if earlier:
        fill(home / "model", EARLIER)
    whole = [{"one": content, "two": content} for content in (EARLIER, NEW)]
    for number, state in enumerate(recorded(home, lambda folder: fill(folder / "model", NEW), monkeypatch)):
        folder = state.write(tmp_path / str(number)) / "model"
        repair(folder)
        assert [path for path in folder.parent.iterdir() if path != folder] == []
        found = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else None
        assert found in (whole[1:] if state.said else [*(whole[:1] if earlier else [None]), whole[1]])
