"""A file on its way in. Its pieces come in any order, and over any number of starts of the node.

::

    NAME.part       the pieces that have come, each at its place
    NAME.journal    one line of JSON about the file, then one per piece: its index, its SHA-256 and that of its copy
    NAME            the whole file: every piece checked again on the disk, flushed, then renamed

The journal is only a claim. Neither file is flushed before all pieces are here, so after a crash either may be ahead
of the other. A start therefore reads the pieces that the journal names and keeps those whose SHA-256 matches. That
costs one pass over the pieces, and none is fetched twice.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deca_node.daemon.transfer.pieces import PIECE_BYTES, Item, piece_count, piece_span
from deca_node.protocol.errors import StorageError, WireError
from deca_node.storage.durable import make_folder, publish_file, sync_file, write_file
from deca_node.storage.jsons import UNFIT, parse

FORMAT = 1
PART, JOURNAL = ".part", ".journal"


class HeldPiece(NamedTuple):
    """A piece on this node's disk: its SHA-256, and the SHA-256 of the whole copy from which it was cut."""

    sha256: bytes
    copy: bytes


class PartialFile:
    """One file on its way in. All methods block; ``store`` may be called for different pieces from several threads.

    ``label`` names the run or the copy to which the file belongs. Pieces that were stored under another label are
    dropped. Raises StorageError where ``folder`` cannot be written.
    """

    def __init__(self, folder: Path, item: Item, label: str) -> None:
        self.item = item
        self.path = folder / item.file
        self.held: dict[int, HeldPiece] = {}
        self._part = folder / f"{item.file}{PART}"
        self._journal = folder / f"{item.file}{JOURNAL}"
        self._head = {"format": FORMAT, "label": label, "bytes": item.nbytes, "piece_bytes": PIECE_BYTES}
        with self._storage():
            make_folder(folder)
            self._resume()

    @property
    def whole(self) -> bool:
        """Whether the finished file is here."""
        return self.path.exists()

    @property
    def missing(self) -> list[int]:
        """The indices of the pieces that have not come."""
        return [] if self.whole else [i for i in range(piece_count(self.item.nbytes)) if i not in self.held]

    @property
    def held_bytes(self) -> int:
        """How many bytes of this file are here and checked."""
        return sum(piece_span(self.item.nbytes, index)[1] for index in self.held)

    @property
    def missing_bytes(self) -> int:
        """How many bytes have not come."""
        return self.item.nbytes - self.held_bytes

    def store(self, index: int, data: bytes, sha256: bytes, copy: bytes) -> bool:
        """Check a piece and write it to the disk. Returns False where it was here already.

        Raises WireError("checksum" or "size") where the piece is damaged; nothing is written then.
        """
        start, nbytes = piece_span(self.item.nbytes, index)
        if len(data) != nbytes:
            raise WireError("size", f"piece {index} of {self.item} has {len(data)} bytes instead of {nbytes}")
        if hashlib.sha256(data).digest() != sha256:
            raise WireError("checksum", f"piece {index} of {self.item} is damaged: its SHA-256 does not match")
        if index in self.held:
            return False
        with self._storage():
            _write_at(self._part, data, start)
            _append(self._journal, _claim(index, HeldPiece(sha256, copy)))
        self.held[index] = HeldPiece(sha256, copy)
        return True

    def finish(self) -> Path:
        """All pieces are here: check them on the disk, flush the file and rename it.

        Raises WireError("checksum") where the file is not the copy from which its pieces were said to be cut. No piece
        is kept then.
        """
        with self._storage():
            if not self.whole:
                self._check_whole()
                # Without its journal the whole file would not be believed after a power cut.
                sync_file(self._journal)
                publish_file(self._part, self.path)
            return self.path

    def discard(self) -> None:
        """Delete everything that has come of this file."""
        self.held = {}
        for path in (self._journal, self._part, self.path):
            path.unlink(missing_ok=True)

    # --- the disk -----------------------------------------------------------------------------------

    def _check_whole(self) -> None:
        self._part.touch()  # a file of no bytes has no pieces
        total = hashlib.sha256()
        damaged = [index for index, data in self._on_disk(self._part) if not self._is_held(index, data, total)]
        for index in damaged:
            del self.held[index]
        if damaged:
            raise WireError("checksum", f"pieces {damaged[:5]} of {self.item} have changed on this node's own disk")
        copies = {held.copy for held in self.held.values()}
        if len(copies) == 1 and total.digest() not in copies:
            self.discard()
            self._write_journal()
            raise WireError("checksum", f"{self.item} as a whole is not what its donor said it was")

    def _is_held(self, index: int, data: bytes, total: Any) -> bool:
        total.update(data)
        return hashlib.sha256(data).digest() == self.held[index].sha256

    def _resume(self) -> None:
        claims = self._read_journal()
        if claims is not None:
            self.held = claims
            for index, data in self._on_disk(self.path if self.whole else self._part):
                if hashlib.sha256(data).digest() != claims[index].sha256:
                    del self.held[index]
        if claims is None or (self.whole and len(self.held) != piece_count(self.item.nbytes)):
            self.discard()
        self._write_journal()

    def _write_journal(self) -> None:
        """Replace the journal by a new one, without wrong claims and torn lines."""
        claims = (_claim(index, held) for index, held in self.held.items())
        write_file(self._journal, (line.encode() for line in (json.dumps(self._head) + "\n", *claims)))

    def _on_disk(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """The held pieces as they are on the disk, in order. A piece that is not there is empty."""
        if not path.exists():
            yield from ((index, b"") for index in sorted(self.held))
            return
        with path.open("rb") as file:
            for index in sorted(self.held):
                start, nbytes = piece_span(self.item.nbytes, index)
                file.seek(start)
                yield index, file.read(nbytes)

    def _read_journal(self) -> dict[int, HeldPiece] | None:
        """The claims of the journal; None where it belongs to another file. A line that a crash has torn is ignored."""
        try:
            lines = self._journal.read_text(encoding="ascii").splitlines()
            if parse(lines[0]) != self._head:
                return None
        except (OSError, ValueError, IndexError):
            return None
        claims: dict[int, HeldPiece] = {}
        for line in lines[1:]:
            with contextlib.suppress(*UNFIT):
                claim = parse(line)
                index, held = claim["piece"], HeldPiece(bytes.fromhex(claim["sha256"]), bytes.fromhex(claim["copy"]))
                if type(index) is int and 0 <= index < piece_count(self.item.nbytes):
                    claims[index] = held
        return claims

    @contextlib.contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            cure = "; make room: what came is kept" if problem.errno == errno.ENOSPC else ""
            what = f"{self.item} ({self.item.nbytes:,} bytes)"
            raise StorageError(f"cannot write {what} into {self.path.parent}: {problem.strerror}{cure}") from None


def _write_at(path: Path, data: bytes, start: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(file, view, start)
            view, start = view[written:], start + written
    finally:
        os.close(file)


def _claim(index: int, held: HeldPiece) -> str:
    return json.dumps({"piece": index, "sha256": held.sha256.hex(), "copy": held.copy.hex()}) + "\n"


def _append(path: Path, line: str) -> None:
    # A single write to a file that only grows: lines of several threads do not mix.
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
