"""The sources that the setting ``data`` names: files and folders, and data sets of the Hugging Face hub, with weights.

::

    notes.jsonl                                    one file or folder
    notes.jsonl, web.parquet*0.5                   several; half of the second one's records
    hf://owner/name, hf://owner/name/subset:split@revision*2

A text that is the path of something is that path, whatever signs are in it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from deca_node.protocol.errors import SettingsError

HUB = "hf://"
WEIGHT_MAX = 1000.0
_WEIGHTED = re.compile(r"(.+?)\s*\*\s*(\d+(?:\.\d+)?|\.\d+)")
_NAME = r"[A-Za-z0-9][\w.-]*"
_HUB_SET = re.compile(rf"hf://({_NAME}/{_NAME})(?:/({_NAME}))?(?::({_NAME}))?(?:@([\w./-]+))?")


@dataclass(frozen=True)
class HubSet:
    """A data set of the hub; ``split`` and ``revision`` are empty where the address names none."""

    name: str
    subset: str = ""
    split: str = ""
    revision: str = ""


@dataclass(frozen=True)
class DataSource:
    """A path, or the address of a data set of the hub; and how often each record counts in an epoch."""

    place: str
    weight: float = 1.0

    @property
    def is_hub(self) -> bool:
        """Whether it is a data set of the hub."""
        return self.place.startswith(HUB)


def data_sources(text: str) -> tuple[DataSource, ...]:
    """The sources that a text names. Raises SettingsError where it is malformed."""
    if _is_there(text) or not text.strip():
        return (DataSource(text),)
    found = tuple(_source(part.strip()) for part in text.split(","))
    places = [source.place for source in found]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise SettingsError(f"data names {twice} twice; name it once, with a weight, as in {twice}*2")
    return found


def hub_set(place: str) -> HubSet:
    """The data set that an address names. Raises SettingsError where it is malformed."""
    found = _HUB_SET.fullmatch(place)
    if not found:
        raise SettingsError(
            f"data = {place} is no address of a data set; write hf://OWNER/NAME[/SUBSET][:SPLIT][@REVISION]"
        )
    return HubSet(*(part or "" for part in found.groups()))


def expanded(text: str) -> str:
    """The same text with ``~`` in paths replaced by the home folder. Raises SettingsError if there is none."""
    sources = data_sources(text)
    try:
        places = [source.place if source.is_hub else str(Path(source.place).expanduser()) for source in sources]
    except RuntimeError as error:
        raise SettingsError(f"{text}: {error}") from error
    weights = ["" if source.weight == 1 else f"*{source.weight:.12g}" for source in sources]
    return ", ".join(place + weight for place, weight in zip(places, weights, strict=True))


def _source(part: str) -> DataSource:
    weighted = None if _is_there(part) else _WEIGHTED.fullmatch(part)
    place, weight = (weighted[1], float(weighted[2])) if weighted else (part, 1.0)
    if not place:
        raise SettingsError("data has a comma with nothing beside it; write the sources with one comma between two")
    if not 0 < weight <= WEIGHT_MAX:
        raise SettingsError(
            f"the weight of {place} in data is {weight:g}; weights are above 0 and at most {WEIGHT_MAX:g}"
        )
    if place.startswith(HUB):
        hub_set(place)
    return DataSource(place, weight)


def _is_there(text: str) -> bool:
    """Whether the whole text is the path of something. A list of sources may be no possible path."""
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError):
        return False
