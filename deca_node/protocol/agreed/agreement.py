"""What two nodes compare when they meet, and the sentence that names where they differ.

An :class:`Agreement` holds every setting of the run and the facts that follow from the model (its hash, its blocks), as
text. Its fingerprint tells one run from another.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.settings import canonical

FORMER: Mapping[str, str] = {"packing": "concatenated", "truncation": "keep-end"}
"""What a field means where an agreement does not have it: what runs did before the setting existed."""

FIELDS_NAMED_MAX = 12
"""Fields that a disagreement names; more than differ where two nodes were given two runs' settings by mistake."""


@dataclass(frozen=True)
class ModelFacts:
    """What follows from the model and the partition, and must be equal everywhere.

    ``sha256`` covers names, shapes, dtype and bytes of all parameters; ``block_elements`` holds the number
    of parameters of each block, ``block_names`` what each is called. ``labels`` are what a classifier sorts into, by
    number.
    """

    sha256: str
    block_names: tuple[str, ...]
    block_elements: tuple[int, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """Field name to value, as text; compared when two nodes meet."""

    fields: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fields in canonical JSON, in hex."""
        text = json.dumps(dict(self.fields), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def agree(settings: RunSettings, model: ModelFacts) -> Agreement:
    """Everything that must be equal, from the settings and the model's facts. Who takes part is not of it: members
    come and go."""
    fields = settings_fields(settings)
    fields["model"] = model.sha256
    fields["blocks"] = " ".join(f"{n}:{e}" for n, e in zip(model.block_names, model.block_elements, strict=True))
    if model.labels:
        # The setting may be empty, and the hash of the weights does not say which output means what.
        fields["classes"] = ", ".join(model.labels)
    return Agreement(fields)


def settings_fields(settings: RunSettings) -> dict[str, str]:
    """The settings' part of an agreement. A setting that says what runs did before it existed is left out, so that such
    runs keep their fingerprint; and so are settings that the task has no use for."""
    fields = {f.name: canonical(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    unused = FORMER.keys() if settings.task == "classification" else ()
    return {name: value for name, value in fields.items() if FORMER.get(name) != value and name not in unused}


def differing_settings(fields: Mapping[str, str], settings: RunSettings) -> list[str]:
    """The names of the settings in which an agreement's ``fields`` are not those of ``settings``."""
    ours = {**FORMER, **settings_fields(settings)}
    return [name for name, value in ours.items() if fields.get(name, FORMER.get(name)) != value]


def mismatch(ours: Agreement, theirs: Agreement, name: str, peer: str) -> str | None:
    """A sentence that names the fields on which ``name`` and ``peer`` differ, or None where they agree. A peer may say
    anything, so the sentence has a limit."""
    names = sorted(set(ours.fields) | set(theirs.fields))
    both = [(f, ours.fields.get(f, FORMER.get(f)), theirs.fields.get(f, FORMER.get(f))) for f in names]
    differing = [(_brief(field), _brief(one), _brief(other)) for field, one, other in both if one != other]
    parts = [f"{f} is {one} at {name} and {other} at {peer}" for f, one, other in differing[:FIELDS_NAMED_MAX]]
    more = [f"and {len(differing) - len(parts)} more fields"] if len(differing) > len(parts) else []
    return f"the run differs: {'; '.join(parts + more)}" if parts else None


def _brief(value: str | None, length_max: int = 200) -> str:
    if value is None:
        return "absent"
    return value if len(value) <= length_max else value[: length_max - 1] + "…"
