"""The files that this node can give to late nodes: the block versions of its checkpoints, and the start model.

The manifests of the checkpoints say what there is. No other file is given, and no path that a caller chooses. Before
the first piece of a file goes out, the whole file is read once and compared with the manifest's SHA-256. So a damaged
disk is noticed here, and not by a node that trains with the block. All functions read files and block: they belong in
threads, and the caller makes sure that one file is hashed at a time.
"""

import contextlib
import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deca_node.daemon.transfer.pieces import PIECE_BYTES, START, Item
from deca_node.storage.manifest import KEPT, DamagedError, checkpoints, newest_manifest, read_manifest

START_FILE = re.compile(
    r"(generation_)?config\.json|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|model[A-Za-z0-9._-]{0,100}\.safetensors|model\.safetensors\.index\.json|merges\.txt|vocab\.txt"
    r"|(tokenizer|spiece|sentencepiece\.bpe)\.model|chat_template\.(json|jinja)"
    r"|((video_)?pre)?processor_config\.json"
)
"""The names of files from which a model and its tokenizer are loaded. Other files in the folder are private, and none
of these files can be run."""

NOWHERE = -1
"""The boundary of a node without a checkpoint."""


@dataclass(frozen=True)
class StockFile:
    """A file that this node can give: its path, and the SHA-256 that it should have."""

    path: Path
    sha256: bytes


@dataclass(frozen=True)
class Stock:
    """The block versions of all kept checkpoints. ``boundary`` is the activation of the newest checkpoint: together
    with the start model, its versions are the whole model as it was before that activation."""

    boundary: int = NOWHERE
    deltas: Mapping[Item, StockFile] = field(default_factory=dict)


class StockReader:
    """Reads the block versions in ``directory``, a node's folder, and the start model in ``model_folder`` (None: the
    start model is not given)."""

    def __init__(self, directory: Path, model_folder: Path | None) -> None:
        self._directory = directory
        self._model_folder = model_folder
        self._sums: dict[tuple[Item, bytes], tuple[bytes, ...]] = {}
        self._start: dict[Item, StockFile] | None = None
        self._closing = threading.Event()

    @property
    def shares_start(self) -> bool:
        """Whether the start model is given."""
        return self._model_folder is not None

    def close(self) -> None:
        """Abandon hashing. A model takes many seconds, and the process cannot end before its threads."""
        self._closing.set()

    def stock(self) -> Stock:
        """The block versions that exist now. A checkpoint that is being written or deleted does not count."""
        manifests = []
        with contextlib.suppress(OSError):
            for folder in checkpoints(self._directory)[:KEPT]:
                with contextlib.suppress(DamagedError):
                    manifests.append(read_manifest(folder))
        deltas = {
            Item(block.activation, name, block.delta.bytes): StockFile(
                self._directory / block.delta.file, bytes.fromhex(block.delta.sha256)
            )
            # The oldest comes first: if a version was frozen twice, the newer checkpoint describes the file.
            for manifest in reversed(manifests)
            for name, block in manifest.blocks.items()
        }
        return Stock(manifests[0].position.activation if manifests else NOWHERE, deltas)

    def start(self) -> Mapping[Item, StockFile]:
        """The files of the start model. The first call hashes them. Raises OSError."""
        if self._model_folder is None:
            return {}
        if self._start is None:
            paths = sorted(p for p in self._model_folder.iterdir() if START_FILE.fullmatch(p.name) and p.is_file())
            self._start = dict(self._hashed(path) for path in paths)
        return self._start

    def sums(self, item: Item, stored: StockFile) -> tuple[bytes, ...]:
        """The SHA-256 of every piece of a file, after the whole file was checked. Raises DamagedError where it is
        damaged, OSError where it is gone."""
        key = (item, stored.sha256)
        if key not in self._sums:
            whole, pieces = self._sum_pieces(stored.path)
            if whole != stored.sha256:
                raise DamagedError(f"{item} is damaged on this donor's disk: its SHA-256 differs")
            self._sums[key] = pieces
        return self._sums[key]

    def forget_all_but(self, stock: Stock) -> None:
        """Drop the sums of versions that are gone."""
        for key in list(self._sums):
            if key[0].activation != START and key[0] not in stock.deltas:
                self._sums.pop(key, None)

    def _hashed(self, path: Path) -> tuple[Item, StockFile]:
        whole, pieces = self._sum_pieces(path)
        item = Item(START, path.name, path.stat().st_size)
        self._sums[item, whole] = pieces
        return item, StockFile(path, whole)

    def _sum_pieces(self, path: Path) -> tuple[bytes, tuple[bytes, ...]]:
        """The SHA-256 of a file, and of each of its pieces."""
        whole, pieces = hashlib.sha256(), []
        with path.open("rb") as file:
            while data := file.read(PIECE_BYTES):
                if self._closing.is_set():
                    raise InterruptedError("this node is stopping")
                whole.update(data)
                pieces.append(hashlib.sha256(data).digest())
        return whole.digest(), tuple(pieces)


def held_versions(directory: Path) -> dict[str, int]:
    """The activation of every block version that this node's own newest checkpoint holds, by block."""
    manifest = newest_manifest(directory)
    return {name: block.activation for name, block in manifest.blocks.items()} if manifest else {}
