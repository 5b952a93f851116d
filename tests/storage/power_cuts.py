"""Every state in which a crash can leave a folder, collected from one undisturbed run.

A :class:`Recorder` looks at a folder before every call to the operating system that may change it: each is a point at
which the process may be killed, or the power may fail. After a kill the folder is as the recorder sees it. After a
power cut some of the changes that were not yet flushed are missing. POSIX promises only this::

    fsync(file)      the bytes of the file, as they are now, outlast a power cut
    fsync(folder)    so do the names in the folder; without it a new, renamed or deleted name may be as it was

So from each point come states in which the changes of names since the last fsync are kept up to some moment, in all
folders or in one, and in which the bytes since the last fsync are kept, lost, or cut in half.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHANGES = (
    *("open", "write", "pwrite", "truncate", "ftruncate", "fsync"),
    *("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "symlink", "chmod"),
)
PREFIXES = 12
"""So many of the last changes of names are undone one after the other; beyond them all at once."""

Tree = Mapping[str, bytes | None]
"""A folder's content: bytes by path, None for a folder."""


@dataclass(eq=False)
class Entry:
    """A file or a folder. ``history`` holds a folder's names from each moment on, ``content`` a file's bytes now."""

    folder: bool
    content: bytes = b""
    synced: bytes = b""
    history: list[tuple[int, dict[str, "Entry"]]] = field(default_factory=list)
    synced_at: int = 0

    def names(self, moment: int) -> dict[str, "Entry"]:
        """The names of a folder after a power cut that kept changes until ``moment``."""
        moment = max(moment, self.synced_at)
        return next((names for since, names in reversed(self.history) if since <= moment), {})

    @property
    def now(self) -> dict[str, "Entry"]:
        return self.history[-1][1] if self.history else {}


@dataclass(frozen=True)
class State:
    """A folder after a crash: ``said`` is what the run had promised by then, ``point`` the number of the call."""

    point: int
    said: tuple[Any, ...]
    killed: bool
    tree: Tree

    def write(self, into: Path) -> Path:
        """Make a folder of it; its files are private, as keys must be."""
        into.mkdir(parents=True)
        for name, content in sorted(self.tree.items()):
            if content is None:
                (into / name).mkdir()
            else:
                (into / name).touch(mode=0o600)
                (into / name).write_bytes(content)
        return into


class Recorder:
    """Collects the states in which crashes could leave ``folder``. What it holds at first is taken to be durable."""

    def __init__(self, folder: Path) -> None:
        self.points = 0
        self.states: dict[Any, State] = {}
        self._folder = folder
        self._said: list[Any] = []
        self._calls = {name: getattr(os, name) for name in CHANGES}
        self._entries: dict[int, Entry] = {}
        self._moment = 0
        self._root = self._scan(folder)
        for entry in self._entries.values():
            entry.synced = entry.content
        self._busy = False

    def say(self, promise: Any) -> None:
        """From now on every state must keep this promise."""
        self._said.append(promise)

    @contextmanager
    def watching(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["Recorder"]:
        """Record the calls of the body."""
        with monkeypatch.context() as patch:
            for name, call in self._calls.items():
                patch.setattr(os, name, self._watched(name, call))
            yield self
        self._point()

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._busy or (name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return call(*args, **kwargs)
            self._point()
            if name != "fsync":
                return call(*args, **kwargs)
            # Flushing takes milliseconds on a real disk, and would change nothing here.
            self._sync(os.fstat(args[0]).st_ino)
            return None

        return watched

    # --- looking ------------------------------------------------------------------------------------

    def _point(self) -> None:
        self._busy = True
        self.points += 1
        self._look()
        said = tuple(self._said)
        for killed, tree in self._trees():
            key = (said, frozenset(tree.items()))
            self.states.setdefault(key, State(self.points, said, killed, tree))
        self._busy = False

    def _look(self) -> None:
        self._moment += 1
        seen: dict[int, Entry] = {}
        self._scan(self._folder, seen)
        # The number of a deleted file is free for another one.
        self._entries = seen

    def _scan(self, path: Path, seen: dict[int, Entry] | None = None) -> Entry:
        seen = self._entries if seen is None else seen
        status = os.lstat(path)
        folder = stat.S_ISDIR(status.st_mode)
        entry = self._entries.get(status.st_ino)
        if entry is None or entry.folder != folder:
            entry = Entry(folder, synced_at=self._moment if not self._moment else -1)
        seen[status.st_ino] = entry
        if folder:
            names = {below.name: self._scan(below, seen) for below in sorted(path.iterdir())}
            if not entry.history or names != entry.now:
                entry.history.append((self._moment, names))
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
            entry.content = entry.content if content == entry.content else content
        return entry

    def _sync(self, inode: int) -> None:
        self._look()
        if entry := self._entries.get(inode):
            entry.synced, entry.synced_at = entry.content, self._moment

    # --- what may be left ---------------------------------------------------------------------------

    def _trees(self) -> Iterator[tuple[bool, Tree]]:
        now, folders = self._moment, [entry for entry in self._entries.values() if entry.folder]
        pending = [entry for entry in folders if entry.history and entry.history[-1][0] > entry.synced_at]
        moments = sorted({since for entry in pending for since, _ in entry.history if since > entry.synced_at})
        cuts: list[Callable[[Entry], int]] = [lambda _entry: now, lambda _entry: -1]
        cuts += [lambda _entry, m=moment - 1: m for moment in moments[-PREFIXES:]]
        if len(pending) > 1:
            cuts += [lambda entry, one=one: -1 if entry is one else now for one in pending]
            cuts += [lambda entry, one=one: now if entry is one else -1 for one in pending]
        for number, cut in enumerate(cuts):
            for keep in (_kept, _lost, _torn):
                yield number == 0 and keep is _kept, dict(_below(self._root, cut, keep))


def _below(
    folder: Entry, cut: Callable[[Entry], int], keep: Callable[[Entry], bytes], path: str = ""
) -> Iterator[tuple[str, bytes | None]]:
    for name, entry in folder.names(cut(folder)).items():
        if entry.folder:
            yield path + name, None
            yield from _below(entry, cut, keep, f"{path}{name}/")
        else:
            yield path + name, keep(entry)


def _kept(entry: Entry) -> bytes:
    return entry.content


def _lost(entry: Entry) -> bytes:
    return entry.synced


def _torn(entry: Entry) -> bytes:
    """Half of the bytes that were not flushed."""
    if entry.content == entry.synced:
        return entry.content
    pairs = enumerate(zip(entry.content, entry.synced, strict=False))
    begin = next((at for at, (new, old) in pairs if new != old), min(len(entry.content), len(entry.synced)))
    return entry.content[: begin + (len(entry.content) - begin) // 2]
