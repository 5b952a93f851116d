"""Data sets of the Hugging Face hub, read by ``datasets``: row by row as they arrive, or from its cache when offline.

A data set is never run as a program: ``datasets`` reads files of data only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deca_node.numerics.data.formats.columnar import without_nulls
from deca_node.numerics.data.formats.sources import Entry, Source
from deca_node.protocol.errors import DataError
from deca_node.storage.data_sources import HubSet, hub_set

TRAIN = "train"
NAMED = "rows of a data set"
"""What the node tells of such records."""


@dataclass
class HubRows:
    """Iterates over the rows of the data set at ``place``. Raises DataError where it cannot be had.

    ``revision`` is the commit that is read; one that is given is read again, whatever the hub has by now.
    ``bytes_done`` and ``bytes_total`` are for progress; the total is 0 where the hub does not tell it. ``told`` says,
    once rows are read, at which revision the data set is.
    """

    place: str
    bytes_done: int = 0
    bytes_total: int = 0
    told: list[str] = field(default_factory=list)
    revision: str = ""

    def __iter__(self) -> Iterator[Entry]:
        found = self._loaded(hub_set(self.place))
        self.bytes_total, rows = _size(found)
        try:
            for number, row in enumerate(found, start=1):
                yield Source(self.place, record=number), without_nulls(row)
                self.bytes_done = self.bytes_total * min(number, rows) // rows if rows else 0
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.place}: the data set could not be read to its end ({_brief(error)}); start again when the hub "
                "can be reached"
            ) from error

    def _loaded(self, wanted: HubSet) -> Any:
        datasets = _library(self.place)
        offline = bool(datasets.config.HF_HUB_OFFLINE)
        try:
            if not offline:
                self.revision = self.revision or _commit(wanted)
                self.told.append(f"{self.place} is at revision {self.revision}")
            revision = self.revision or wanted.revision or None
            found = datasets.load_dataset(
                wanted.name, wanted.subset or None, split=wanted.split or None, revision=revision, streaming=not offline
            )
        except Exception as error:
            why = "HF_HUB_OFFLINE is set, so only the cache was asked: " * offline + _brief(error)
            raise DataError(
                f"{self.place}: the data set cannot be had ({why}); check its name, subset, split and revision, and "
                "the network"
            ) from error
        return self._one_split(found) if isinstance(found, dict) else found

    def _one_split(self, found: dict[str, Any]) -> Any:
        if TRAIN in found:
            return found[TRAIN]
        if len(found) == 1:
            return next(iter(found.values()))
        raise DataError(
            f"{self.place}: a data set with the splits {', '.join(sorted(found))}; name one, as in :{min(found)}"
        )


def _library(place: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{place}: data sets of the hub need the package datasets, which is not installed; install it with: "
            "pip install 'deca-node[sets]'"
        ) from None
    datasets.disable_progress_bars()
    return datasets


def _commit(wanted: HubSet) -> str:
    """The commit that the revision is now, so that all files are those of one commit."""
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(wanted.name, revision=wanted.revision or None).sha)


def _size(found: Any) -> tuple[int, int]:
    """Bytes and rows of the split; 0 where they are not told."""
    splits = getattr(found.info, "splits", None) or {}
    split = splits.get(str(found.split))
    return (int(split.num_bytes or 0), int(split.num_examples or 0)) if split else (0, 0)


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
