"""Several sources with weights: what an epoch has of each, and that nothing held out is trained on."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deca_node.numerics.data.dataset import PackedData
from deca_node.numerics.data.labelled import load_labelled
from deca_node.numerics.data.sequences import Sequences
from deca_node.protocol.errors import SettingsError
from tests.numerics.data.byte_tokens import byte_tokenizer, text_of
from tests.numerics.data.store.corpora import loaded, seen


def source(folder: Path, name: str, records: int) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": f"{name}{number:03}."}) + "\n" for number in range(records)))
    return path


def counted(sequences: Sequences) -> Counter[str]:
    """How often each record is in the sequences."""
    texts = (text_of(sequences.gather(np.array([number])).ids[0]) for number in range(len(sequences)))
    return Counter(record[:4] for text in texts for record in text.replace("</s>", "").split(".") if record)


def of(counts: Counter[str], name: str) -> Counter[str]:
    return Counter({record: count for record, count in counts.items() if record.startswith(name)})


@pytest.fixture
def three(tmp_path: Path) -> str:
    paths = [source(tmp_path, name, records) for name, records in (("a", 60), ("b", 40), ("c", 50))]
    return f"{paths[0]}, {paths[1]}*2.5, {paths[2]}*0.5"


def mixture(three: str, packing: str = "isolated", **more: Any) -> PackedData:
    return loaded(three, packing, bos=False, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("packing", ["isolated", "none", "concatenated"])
def test_each_record_counts_as_often_as_its_source_says(three: str, packing: str, tmp_path: Path) -> None:
    data = mixture(three, packing, store=tmp_path / "tokens")
    train, held = counted(data.train), counted(data.heldout)
    if packing == "concatenated":
        # The tail behind the last cut is dropped, and cuts go through records.
        assert sum(of(train, "b").values()) > 1.8 * sum(of(train, "a").values()) * 30 / 60
        return
    assert not set(train) & set(held) and set(held.values()) == {1}
    kept = {name: records - len(of(held, name)) for name, records in (("a", 60), ("b", 40), ("c", 50))}
    assert Counter(of(train, "a").values()) == {1: kept["a"]}
    assert Counter(of(train, "b").values()) == {2: kept["b"] - round(kept["b"] / 2), 3: round(kept["b"] / 2)}
    assert Counter(of(train, "c").values()) == {1: round(kept["c"] / 2)}


def test_a_mixture_is_told_and_repeats_itself(three: str, tmp_path: Path) -> None:
    """Other weights are another mixture of the same tokens."""
    first = mixture(three, store=tmp_path / "tokens")
    told = [sentence for sentence in first.summary.files if "weight" in sentence]
    assert len(told) == 3 and told[1].startswith(f"{tmp_path}/b.jsonl, weight 2.5: ") and told[1].endswith("% of all")
    again = mixture(three, store=tmp_path / "tokens")
    assert seen(first) == seen(again) == seen(mixture(three))
    other = mixture(three.replace("2.5", "3"), store=tmp_path / "tokens")
    assert any("took the tokens" in sentence for sentence in other.summary.files)
    assert seen(other) != seen(first) and counted(other.heldout) == counted(first.heldout)


def test_with_private_gradients_no_record_counts_twice(three: str) -> None:
    with pytest.raises(SettingsError, match=r"b\.jsonl has the weight 2\.5 in data, but with dp_noise no record"):
        mixture(three, private=True)
    mixture(three.replace("*2.5", ""), private=True)


def test_labelled_records_have_weights_as_well(tmp_path: Path) -> None:
    for name, records in (("a", 20), ("b", 20)):
        rows = [json.dumps({"text": f"{name}{number:03}", "label": name}) for number in range(records)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    text = f"{tmp_path}/a.jsonl, {tmp_path}/b.jsonl*2"
    data = load_labelled(text, byte_tokenizer(), ["a", "b"], sequence_length=16, holdout=0.2, bad_records="stop")
    held = np.bincount(data.heldout.labels, minlength=2)
    assert np.bincount(data.train.labels).tolist() == [20 - held[0], 2 * (20 - held[1])]
    assert held.sum() == 8
