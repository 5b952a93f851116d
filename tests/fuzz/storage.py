"""What lies on a node's disk, written by itself before a crash, by a person, or by a donor: checkpoints, tensors,
models, metrics, records."""

import contextlib
import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

from deca_node.api.loading import start_model_of
from deca_node.api.records import Follower, read_records
from deca_node.daemon.status.history import History
from deca_node.lab.report.metrics import read_metrics
from deca_node.lab.report.run_report import read_node
from deca_node.numerics.data.formats.sources import BadRecords
from deca_node.numerics.data.records import RecordReader
from deca_node.numerics.forecast.shapes import meta_model, model_shape
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.load import check_weights, read_config, read_tokenizer
from deca_node.numerics.saving.tensor_files import copy_into, read_tensors, write_tensors
from deca_node.protocol.agreed.agreement import ModelFacts, agree
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import ModelError
from deca_node.protocol.node.node import Node
from deca_node.storage import manifest as m
from deca_node.storage.folder import agreed_fields
from deca_node.storage.model_files import read_headers
from tests.defaults import default_policy
from tests.fuzz.decoders import Decoder, Finding, Target
from tests.fuzz.scratch import file, fresh, scratch

AGREEMENT = agree(RunSettings(), ModelFacts("0" * 64, ("layers.0",), (10,)))
NESTED = b"[" * 5000
HUGE = b'{"kind": "step", "time": ' + b"9" * 400 + b', "loss": 1e999, "ordinal": 1e999}'

torch.set_num_threads(1)


# --- checkpoints -------------------------------------------------------------------------------------


def _manifest(data: bytes) -> None:
    """A manifest as it is, or after a plus sign with the digest and the fingerprint that it ought to have."""
    if data[:1] == b"+":
        data = _mended(data[1:])
    folder = fresh("node") / m.CHECKPOINTS / "000006-00003"
    folder.mkdir(parents=True)
    (folder / m.MANIFEST).write_bytes(data)
    found = m.read_manifest(folder)
    for stored in found.files:
        if Path(stored.file).is_absolute() or ".." in Path(stored.file).parts:
            raise Finding(f"a manifest leads to {stored.file}")
    with contextlib.suppress(m.DamagedError):
        m.check_files(folder.parents[1], found)


def _mended(data: bytes) -> bytes:
    try:
        content = json.loads(data)
        content["fingerprint"] = m.Agreement(content["agreement"]).fingerprint
        content["digest"] = m._digest(content)
        return json.dumps(content).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return data


def _manifests() -> list[bytes]:
    folder = fresh("seed") / "000006-00003"
    folder.mkdir()
    stored = (
        m.StoredFile(m.value_name("layers.0", 5), 3, "0" * 64),
        m.StoredFile(m.delta_name("layers.0", 5), 3, "1" * 64),
    )
    active = m.StoredActive(
        "layers.0", m.StoredFile(f"checkpoints/000006-00003/{m.ACTIVE}", 3, "2" * 64), (3, 0.1, 0.1)
    )
    made = m.Manifest(
        AGREEMENT, Step(6, 3), {"layers.0": m.StoredBlock(5, *stored)}, active, m.DataPlace(0, 1, 2), {"cpu": ""}, 5.0
    )
    m.write_manifest(folder, made)
    text = (folder / m.MANIFEST).read_bytes()
    huge = text.replace(b'"written": 5.0', b'"written": ' + b"9" * 400)
    return [b"+" + text, text, b"+" + huge, b"+" + NESTED]


def _tensors(data: bytes) -> None:
    path = file("block.safetensors", data)
    mine = {"a": torch.zeros(3, 2), "b": torch.zeros(5, dtype=torch.bfloat16)}
    dict(read_tensors(path, ["a"]))
    copy_into(mine, path)


def _tensor_files() -> list[bytes]:
    path = scratch() / "seed.safetensors"
    write_tensors(path, {"a": torch.ones(3, 2), "b": torch.ones(5, dtype=torch.bfloat16)})
    return [path.read_bytes(), struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 5000) + b"[" * 5000]


# --- models ------------------------------------------------------------------------------------------


def _config(data: bytes) -> None:
    """A config.json, as far as a plan goes: its blocks and their sizes, as a language model and as a classifier."""
    folder = fresh("model")
    (folder / "config.json").write_bytes(data)
    for head in (Head((), 1), Head(("neg", "pos"), 1)):
        with contextlib.suppress(ModelError):
            read_config(folder, head)
    read_config(folder, None)
    model_shape(meta_model(str(folder), 8), 1)


def _configs() -> list[bytes]:
    shape: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 32}
    config = LlamaConfig(**shape, num_hidden_layers=2, num_key_value_heads=1, max_position_embeddings=64).to_dict()
    texts = [json.dumps(config), json.dumps({**shape, "model_type": "llama"})]
    texts += [
        json.dumps({**config, name: value}) for name, value in (("num_hidden_layers", 10**12), ("vocab_size", -1))
    ]
    gpt2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 32, "n_positions": 16}
    return [*(text.encode() for text in texts), json.dumps(gpt2).encode(), NESTED]


def _weights(data: bytes) -> None:
    """An index of shards with one shard beside it, or after a plus sign the weights themselves."""
    folder = fresh("weights")
    if data[:1] == b"+":
        (folder / "model.safetensors").write_bytes(data[1:])
    else:
        (folder / "model.safetensors.index.json").write_bytes(data)
        (folder / "model-1.safetensors").write_bytes(_tensor_files()[0])
    check_weights(folder)
    read_headers(folder)


def _weight_files() -> list[bytes]:
    shards = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    return [shards, b'{"weight_map": {"a": [1]}}', NESTED, *(b"+" + data for data in _tensor_files())]


def _tokenizer(data: bytes) -> None:
    folder = fresh("tokenizer")
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    read_tokenizer(folder)


def _tokenizers() -> list[bytes]:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]], "unk_token": None}
    added = {"id": 3, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added | {"normalized": False}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }
    return [json.dumps(content).encode()]


# --- records and metrics -----------------------------------------------------------------------------


def _records(suffix: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        for skip in (True, False):
            sum(record.characters for record in RecordReader(file(f"data{suffix}", data), BadRecords(skip)))

    return read


_RECORDS = (
    b'{"text": "Seen in clinic"}\n{"prompt": "a", "completion": "b"}\n'
    b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
)


def _metrics(data: bytes) -> None:
    """A node's folder, as the report, the Python interface and the page read it."""
    folder = fresh("metrics")
    path = folder / "metrics.jsonl"
    path.write_bytes(data)
    list(read_records(path))
    list(Follower(path).rest())
    History(Node("north", ("north",), RunSettings(), default_policy()).state).recall(path)
    read_metrics(path)
    read_node(folder)


def _metric_lines() -> list[bytes]:
    step: dict[str, Any] = {"kind": "step", "time": 1.5, "round": 0, "block": 1, "inner": 2, "ordinal": 3, "loss": 2.5}
    step |= {"bytes_sent": 10, "bytes_received": 20, "step_seconds": 0.5, "consensus_distance": None}
    lines = [step, {"kind": "eval", "time": 1.0, "when": "start", "ordinal": 0, "loss": 2.0}, {"kind": "other"}]
    return ["\n".join(map(json.dumps, lines)).encode(), NESTED + b"\n" + HUGE + b"\n[]\n3", HUGE]


def _run_json(data: bytes) -> None:
    folder = fresh("run")
    (folder / "run.json").write_bytes(data)
    (folder / "metrics.jsonl").write_bytes(_metric_lines()[0])
    agreed_fields(folder)
    read_node(folder)
    start_model_of(folder)


def _run_files() -> list[bytes]:
    content = {"fingerprint": AGREEMENT.fingerprint, "agreement": dict(AGREEMENT.fields), "start_model": "/m"}
    return [json.dumps(content).encode(), b'{"agreement": []}', b"[]", NESTED]


TARGET = Target(
    "storage",
    (
        Decoder("manifest", _manifest, _manifests),
        Decoder("safetensors", _tensors, _tensor_files),
        Decoder("config.json", _config, _configs),
        Decoder("weights", _weights, _weight_files),
        Decoder("tokenizer.json", _tokenizer, _tokenizers),
        Decoder("records", _records(".jsonl"), lambda: [_RECORDS, NESTED]),
        Decoder("packed records", _records(".jsonl.gz"), lambda: [gzip.compress(_RECORDS, mtime=0)]),
        Decoder("text", _records(".txt"), lambda: ["Seen in clinic, übel".encode()]),
        Decoder("metrics.jsonl", _metrics, _metric_lines),
        Decoder("run.json", _run_json, _run_files),
    ),
)
