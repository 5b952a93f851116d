"""The agreement that two nodes compare when they meet, and the sentence that names the differences.

An :class:`Agreement` holds every setting of the run and the facts of the model (its hash, its blocks) as text. Its
fingerprint identifies the run.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.settings import canonical

FORMER: Mapping[str, str] = {
    "packing": "concatenated",
    "truncation": "keep-end",
    "epochs": "0.0",
    "epoch_sequences": "0",
    "early_stop_rounds": "0",
    "early_stop_gain": "0.0",
    "lr_warmup_steps": "0",
    "embedding_lr_scale": "1.0",
    "head_lr_scale": "1.0",
    "weight_decay": "0.0",
    "max_grad_norm": "0.0",
    "neftune_alpha": "0.0",
    "moments_every": "0",
    "moment_bits": "8",
    "partners": "visit",
    "weights": "equal",
    "weight_tokens": "0",
    "v_every": "1",
    "dropout": "-1.0",
}
"""The value of a field that an agreement does not have: the behaviour of runs before the setting existed."""

OF_TEXTS = frozenset({"packing", "truncation"})
"""Settings that a classification run does not use."""

FIELDS_NAMED_MAX = 12
"""The most fields that the sentence names. A peer may send any number of them."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts of the model and its blocks, which must be equal on all nodes.

    ``sha256`` covers names, shapes, dtype and bytes of all parameters. ``block_elements`` holds the number of
    parameters of each block. ``labels`` are the labels of a classifier in the order of their numbers.
    """

    sha256: str
    block_names: tuple[str, ...]
    block_elements: tuple[int, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """The values of all fields as text, by name. Two nodes compare them when they meet."""

    fields: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fields in canonical JSON, in hex."""
        text = json.dumps(dict(self.fields), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def agree(settings: RunSettings, model: ModelFacts) -> Agreement:
    """The agreement of a run with these settings and this model. The members are not part of it, since they come and
    go."""
    fields = settings_fields(settings)
    fields["model"] = model.sha256
    fields["blocks"] = " ".join(f"{n}:{e}" for n, e in zip(model.block_names, model.block_elements, strict=True))
    if model.labels:
        # The setting may be empty, and the hash of the weights does not tell the order of the labels.
        fields["classes"] = ", ".join(model.labels)
    return Agreement(fields)


def settings_fields(settings: RunSettings) -> dict[str, str]:
    """The fields of an agreement that follow from the settings. A setting with the value of :data:`FORMER` is left
    out, so that older runs keep their fingerprint. Settings that the task does not use are left out too."""
    fields = {f.name: canonical(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    unused = OF_TEXTS if settings.task == "classification" else ()
    return {name: value for name, value in fields.items() if FORMER.get(name) != value and name not in unused}


def differing_settings(fields: Mapping[str, str], settings: RunSettings) -> list[str]:
    """The names of the settings in which the ``fields`` of an agreement differ from ``settings``."""
    ours = {**FORMER, **settings_fields(settings)}
    return [name for name, value in ours.items() if fields.get(name, FORMER.get(name)) != value]


def mismatch(ours: Agreement, theirs: Agreement, name: str, peer: str) -> str | None:
    """A sentence that names the fields in which ``name`` and ``peer`` differ, or None if they agree. A peer may send
    any text, so the length of the sentence is limited."""
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
