"""``deca-node doctor``: what fails is named with what to do, what depends on it is left out, and nothing is started."""

import dataclasses
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3nTextConfig, Qwen3MoeConfig

from deca_node.cli.checks.peers import PEER_DO
from deca_node.daemon.diagnosis.probe import Obstacle, Probed, Stage
from deca_node.daemon.diagnosis.reach import Surveyed
from deca_node.daemon.transfer.offers import Offer
from deca_node.lab.rigs.processes import free_ports
from deca_node.protocol.agreed.agreement import Agreement, settings_fields
from deca_node.protocol.agreed.run import RunSettings

Deca = Callable[..., Any]
FLAGS = ("--insecure", "--name", "a", "--model", "model", "--data", "a.jsonl", "--sequence-length", "16", "--json")
MODEL_HASH = "86cbdb61bc7c6bce89a3071fca5a9703b43b0f827855ef68f1c7124e86762a5b"
"""Of the tiny model, which is drawn from a fixed seed."""
CLASSIFIER_HASH = "31b3aa5290ff912ab0768e8d4dc3ec7475dd42ab8a61934946c5a6098ebe18f6"
"""The same with the head that every node draws for two labels under seed 0."""
RUN = RunSettings(sequence_length=16)
ALL = ["settings", "certificates", "peers file", "folder", "listen", "data", "model", "tokenizer", "memory", "disk"]


@pytest.fixture
def place(deca: Deca, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a start needs, in the working directory, without variables that redirect traffic."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    Path("model").symlink_to(tiny)
    Path("a.jsonl").write_text("".join(json.dumps({"text": f"the node was {n}"}) + "\n" for n in range(30)))
    own, other = free_ports(2)
    Path("peers.txt").write_text(f"a@127.0.0.1:{own}\nb@127.0.0.1:{other}\n")
    return Path.cwd()


def probed(**facts: Any) -> Probed:
    return Probed(**({"name": "b", "address": "127.0.0.1:7002", "stage": Stage.DONE} | facts))


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> list[Probed]:
    """What the only peer answers: greets, unless a test puts something else here."""
    blocks = "embedding:768 layers.0:10304 layers.1:10304 head:800"
    agreement = Agreement({**settings_fields(RUN), "model": MODEL_HASH, "blocks": blocks})
    answers = [probed(offer=Offer("b", agreement, "", 3, 3, {}, {}), clock_ahead_seconds=0.25)]

    async def answer(targets: Any, own: str, _security: Any, _seconds: float, heard: Any) -> list[Probed]:
        assert ([name for name, _ in targets], own) == (["b"], "a")
        heard(answers[-1])
        return [answers[-1]]

    monkeypatch.setattr("deca_node.daemon.diagnosis.probe.probe_all", answer)
    return answers


def look(outcome: Any) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in json.loads(outcome.out)["findings"]}


def verdicts(outcome: Any) -> dict[str, str]:
    return {check: finding["verdict"] for check, finding in look(outcome).items()}


@pytest.mark.usefixtures("peer")
def test_all_is_well(deca: Deca, place: Path) -> None:
    before = sorted(place.iterdir())
    outcome = deca("doctor", "--load", *FLAGS)
    assert outcome.code == 0
    assert verdicts(outcome) == dict.fromkeys([*ALL, "load", "peer b", "clock"], "ok")
    found = look(outcome)
    assert found["data"]["facts"]["records"] == 30
    assert found["memory"]["facts"]["peak_bytes"] == max(found["memory"]["facts"]["blocks_bytes"].values())
    assert found["disk"]["facts"]["parts_bytes"]["tokens"] > 0
    assert found["disk"]["facts"]["needed_bytes"] == sum(found["disk"]["facts"]["parts_bytes"].values())
    assert found["clock"]["facts"]["offsets_seconds"] == {"b": 0.25}
    assert json.loads(outcome.out)["counts"] == {"ok": 13, "warning": 0, "failed": 0, "skipped": 0}
    assert sorted(place.iterdir()) == before


@pytest.mark.usefixtures("peer", "place")
def test_proxies_in_the_environment_are_named(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    outcome = deca("doctor", *FLAGS)
    assert outcome.code == 0
    assert look(outcome)["environment"]["facts"]["names"] == ["http_proxy"]


@pytest.mark.usefixtures("place")
def test_a_peer_that_is_not_started_is_a_warning(deca: Deca) -> None:
    outcome = deca("doctor", *FLAGS)
    assert outcome.code == 0
    assert look(outcome)["peer b"]["verdict"] == "warning"
    assert look(outcome)["peer b"]["facts"]["kind"] == "nobody"


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("kind", [kind for kind in Obstacle if kind is not Obstacle.NONE])
def test_every_way_in_which_a_peer_is_not_there(deca: Deca, peer: list[Probed], kind: Obstacle) -> None:
    peer.append(probed(stage=Stage.TLS, kind=kind, problem="so it is"))
    outcome = deca("doctor", *FLAGS)
    verdict, do = PEER_DO[kind.value]
    found = look(outcome)["peer b"]
    assert (found["verdict"], found["do"], found["says"]) == (verdict.value, do, "127.0.0.1:7002: so it is")
    assert outcome.code == (13 if verdict == "failed" else 0)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("relays", "reached", "verdict", "words"),
    [
        (False, False, "warning", "c cannot dial this node either, so this pair needs a relay, and none relays"),
        (True, False, "ok", "so this pair needs a relay, and c relays"),
        (False, True, "ok", "c can dial this node, so b can do so too"),
        (True, None, "ok", "if b cannot dial this node either, this pair needs a relay, and c relays"),
    ],
)
def test_a_pair_that_will_need_a_relay(
    deca: Deca,
    peer: list[Probed],
    monkeypatch: pytest.MonkeyPatch,
    relays: bool,
    reached: bool | None,
    verdict: str,
    words: str,
) -> None:
    """b does not answer, and c, which does, is connected with it."""
    answering = dataclasses.replace(peer[0], name="c")

    async def answer(*_: Any) -> list[Probed]:
        return [probed(stage=Stage.CONNECT, kind=Obstacle.SILENT, problem="no answer"), answering]

    async def survey(peers: Any, *_: Any) -> list[Surveyed]:
        assert peers == [("c", answering.address)]
        return [Surveyed("c", relays, reached, frozenset({"b"}))]

    monkeypatch.setattr("deca_node.daemon.diagnosis.probe.probe_all", answer)
    monkeypatch.setattr("deca_node.daemon.diagnosis.reach.survey_all", survey)
    outcome = deca("doctor", *FLAGS)
    found = look(outcome)["peer b"]
    assert found["verdict"] == verdict and words in found["says"]
    assert ("relay = true at c" in found["do"]) == (verdict == "warning")
    assert outcome.code == 0


@pytest.mark.usefixtures("place")
def test_a_peer_of_another_run(deca: Deca, peer: list[Probed]) -> None:
    offer = peer[0].offer
    assert offer is not None
    fields = dict(offer.agreement.fields) | {"rounds": "9"}
    peer.append(dataclasses.replace(peer[0], offer=dataclasses.replace(offer, agreement=Agreement(fields))))
    outcome = deca("doctor", *FLAGS)
    assert outcome.code == 13
    assert look(outcome)["peer b"]["says"] == ("127.0.0.1:7002: the run differs: rounds is 4 at this node and 9 at b")
    assert outcome.err.endswith("error: 1 of 12 checks failed: peer b\n")


@pytest.mark.usefixtures("place")
def test_another_model_is_found_where_it_is_loaded(deca: Deca, peer: list[Probed]) -> None:
    offer = peer[0].offer
    assert offer is not None
    fields = dict(offer.agreement.fields) | {"model": "00" * 32}
    peer.append(dataclasses.replace(peer[0], offer=dataclasses.replace(offer, agreement=Agreement(fields))))
    assert deca("doctor", *FLAGS).code == 0
    outcome = deca("doctor", "--load", *FLAGS)
    assert outcome.code == 13
    assert look(outcome)["peer b"]["says"] == (
        f"127.0.0.1:7002: the run differs: model is {MODEL_HASH} at this node and {'00' * 32} at b"
    )


def test_without_settings_nothing_else_can_be_checked(deca: Deca) -> None:
    outcome = deca("doctor", "--rounds", "0", "--json")
    assert outcome.code == 13
    found = verdicts(outcome)
    assert found.pop("settings") == "failed" and found.pop("clock") == "ok"
    assert set(found.values()) == {"skipped"}
    assert "rounds = 0" in look(outcome)["settings"]["says"]


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(
    ("flags", "check", "says"),
    [
        (("--peers", "none.txt"), "peers file", "none.txt cannot be read"),
        (("--topology", "edges", "--edges", "a-x"), "peers file", "edges:"),
        (("--data", "none.jsonl"), "data", "no such file or folder"),
        (("--model", "./none"), "model", "there is no folder ./none"),
        (("--sequence-length", "4096"), "model", "sequence_length = 4096 is more than the 64 positions"),
        (("--device", "cuda:7"), "memory", "torch sees 0 CUDA devices"),
        (("--dir", "a.jsonl/sub"), "folder", ""),
    ],
)
def test_what_is_wrong_is_named(deca: Deca, place: Path, flags: tuple[str, ...], check: str, says: str) -> None:
    outcome = deca("doctor", *FLAGS, *flags)
    assert outcome.code == 13
    assert look(outcome)[check]["verdict"] == "failed"
    assert says in look(outcome)[check]["says"]
    assert look(outcome)[check]["do"]


@pytest.mark.usefixtures("peer", "place")
@pytest.mark.parametrize(("flags", "verdict", "code"), [((), "failed", 13), (("--bad-records", "skip"), "warning", 0)])
def test_bad_records_are_named(deca: Deca, flags: tuple[str, ...], verdict: str, code: int) -> None:
    with Path("a.jsonl").open("a") as file:
        file.write('{"text": ""}\n')
    outcome = deca("doctor", *FLAGS, *flags)
    found = look(outcome)["data"]
    assert (outcome.code, found["verdict"], found["facts"]["bad_records"]) == (code, verdict, 1)
    assert 'a.jsonl line 31: "text" is empty' in found["says"]


@pytest.mark.usefixtures("peer", "place")
def test_formats_and_files_that_are_left_out_are_told(deca: Deca) -> None:
    Path("set").mkdir()
    for name, content in {
        "a.csv": "body,id\none,1\ntwo,2\n",
        "b.json": '[{"body": "three"}]',
        "README.md": "about",
        "a.csv~": "old",
    }.items():
        Path("set", name).write_text(content)
    outcome = deca("doctor", *FLAGS, "--data", "set", "--columns", "text=body")
    found = look(outcome)["data"]
    assert (found["verdict"], found["facts"]["records"]) == ("ok", 3)
    assert found["facts"]["files"] == [
        "read 2 records as CSV",
        "read 1 records as JSON",
        "left out of set: README.md (about the data), a.csv~ (a backup or a part of a file)",
    ]
    assert all(sentence in found["says"] for sentence in found["facts"]["files"])
    outcome = deca("doctor", *FLAGS, "--columns", "body")
    assert outcome.code != 0 and "columns has 'body'; write NAME=COLUMN" in outcome.out + outcome.err


@pytest.mark.usefixtures("peer", "place")
def test_the_port_of_a_node_that_runs_already(deca: Deca) -> None:
    """Taken by a stranger it is a failure, and by the node itself none."""
    port = int(Path("peers.txt").read_text().splitlines()[0].rpartition(":")[2])
    Path("deca-data/a").mkdir(parents=True)
    with socket.socket() as listener, Path("deca-data/a/lock").open("w") as lock:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        outcome = deca("doctor", *FLAGS)
        assert (outcome.code, verdicts(outcome)["listen"]) == (13, "failed")
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = deca("doctor", *FLAGS)
        assert outcome.code == 0
        assert [verdicts(outcome)[check] for check in ("folder", "listen")] == ["warning", "warning"]


@pytest.mark.usefixtures("peer", "place")
def test_memory_and_weights_that_do_not_fit(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deca_node.numerics.forecast.fitting.free_memory", lambda *_: ("cuda:0", 1000))
    found = look(deca("doctor", *FLAGS))["memory"]
    assert found["verdict"] == "failed"
    assert "blocks do not fit: embedding" in found["says"]
    config = json.loads(Path("model/config.json").read_text())
    broken = Path("broken")
    broken.mkdir()
    for file in Path("model").iterdir():
        (broken / file.name).symlink_to(file.resolve())
    (broken / "config.json").unlink()
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 80}))
    found = look(deca("doctor", *FLAGS, "--model", "broken"))["model"]
    assert found["verdict"] == "failed"
    assert "mlp.gate_proj.weight is [64, 32] where config.json makes it [80, 32]" in found["says"]


@pytest.mark.usefixtures("place")
def test_the_table_for_people(deca: Deca, peer: list[Probed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    peer.append(probed(stage=Stage.CONNECT, kind=Obstacle.SILENT, problem="no answer \x1b[2J"))
    outcome = deca("doctor", *FLAGS[:-1])
    assert outcome.code == 13
    assert "\x1b" not in outcome.out
    assert "127.0.0.1:7002: no answer" in outcome.out
    assert "→ check that the machine is up" in outcome.out


@pytest.mark.usefixtures("place", "peer")
def test_records_of_a_private_run_are_loaded_one_by_one(deca: Deca) -> None:
    """As its trainer does, under dp_noise: a record is a sequence of its own."""
    packed, private = (
        look(deca("doctor", "--load", *FLAGS, *more))["load"]["says"] for more in ((), ("--dp-noise", "1"))
    )
    assert "27 sequences to train on" in private
    assert "9 sequences to train on" in packed


@pytest.mark.usefixtures("place", "peer")
def test_the_length_of_the_run_is_told_in_passes_over_this_node_s_data(deca: Deca) -> None:
    flags = ["--inner-steps", "3", "--batch-size", "3"]
    rounds, epochs = (
        look(deca("doctor", "--load", *FLAGS, *flags, *more))["load"]["says"]
        for more in (("--rounds", "1"), ("--epochs", "5", "--epoch-sequences", "20"))
    )
    assert "the run has 1 round, each of 4 blocks x 3 steps x 3 sequences: 4 passes over the 9 here" in rounds
    assert "learning_rate" not in rounds
    long = look(deca("doctor", "--load", *FLAGS, *flags, "--rounds", "1", "--lr-warmup-steps", "13"))["load"]["says"]
    assert "with lr_warmup_steps = 13, 12 steps do not reach learning_rate" in long
    assert (
        "5 epochs of 20 sequences make 3 rounds, each of 4 blocks x 3 steps x 3 sequences: 12 passes over the 9"
        in epochs
    )


@pytest.mark.usefixtures("place")
def test_labelled_records_are_looked_at_with_the_run_s_labels(deca: Deca, peer: list[Probed]) -> None:
    """The head that is not in the files is no fault: it is drawn from the run's seed."""
    lines = [{"text": f"the node was {n}", "label": n % 2} for n in range(30)]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = dataclasses.replace(RUN, task="classification", labels="no, yes")
    blocks = "embedding:768 layers.0:10304 layers.1:10304 head:96"
    fields = {**settings_fields(run), "classes": "no, yes", "model": CLASSIFIER_HASH, "blocks": blocks}
    peer.append(probed(offer=Offer("b", Agreement(fields), "", 3, 3, {}, {})))
    flags = [*FLAGS, "--task", "classification"]
    outcome = deca("doctor", "--load", *flags, "--labels", "no, yes")
    found = look(outcome)
    assert outcome.code == 0, outcome.out
    assert found["data"]["says"].startswith("30 labelled records")
    assert "27 to train on, 3 held out" in found["load"]["says"]
    assert found["model"]["verdict"] == found["peer b"]["verdict"] == "ok"
    found = look(deca("doctor", *flags))
    assert (found["data"]["verdict"], found["model"]["verdict"]) == ("warning", "failed")
    assert "names labels; name them as in labels = 'neg, pos'" in found["model"]["says"]
    Path("a.jsonl").write_text(json.dumps({"text": "a", "label": "yess"}) + "\n")
    said = look(deca("doctor", *flags, "--labels", "no, yes"))["data"]["says"]
    assert "there are no usable records" in said


def test_steps_to_copy_stand_below_the_table(deca: Deca) -> None:
    """An error of several lines has its first line in the table; the others stay whole."""
    outcome = deca("doctor")
    table, _, steps = outcome.out.partition("To try it with two nodes")
    assert "4 things are missing" in table
    assert "  deca-node start --insecure --name north --model ./MODEL --data north.jsonl\n" in steps
    found = next(each for each in json.loads(deca("doctor", "--json").out)["findings"] if each["check"] == "settings")
    assert "\n" not in found["says"]
    assert any("deca-node start --insecure" in step for step in found["facts"]["steps"])


SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def gemma3n() -> Gemma3nTextConfig:
    small = {
        "hidden_size_per_layer_input": 4,
        "laurel_rank": 4,
        "altup_num_inputs": 2,
        "vocab_size_per_layer_input": 50,
    }
    kinds = ["sliding_attention", "full_attention"] * 2
    return Gemma3nTextConfig(
        **SIZES,
        **small,
        intermediate_size=[24] * 4,
        activation_sparsity_pattern=[0.0] * 4,
        num_kv_shared_layers=1,
        layer_types=kinds,
        sliding_window=8,
    )


def qwen3_moe() -> Qwen3MoeConfig:
    return Qwen3MoeConfig(**SIZES, intermediate_size=24, moe_intermediate_size=8, num_experts=2)


# --- what a start would refuse ----------------------------------------------------------------------

CHAT = {"messages": [{"role": "user", "content": "the node"}, {"role": "assistant", "content": "was the node"}]}
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture
def own_model(place: Path, tiny: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    Path("model").unlink()
    shutil.copytree(tiny, "model")
    return place / "model"


def write(*records: Any) -> None:
    Path("a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.usefixtures("peer")
def test_a_tokenizer_that_is_missing_or_larger_than_the_model(deca: Deca, own_model: Path) -> None:
    config = json.loads((own_model / "config.json").read_text())
    weights = load_file(own_model / "model.safetensors")
    rows = {name: tensor[:10].clone() for name, tensor in weights.items() if len(tensor) == config["vocab_size"]}
    save_file({**weights, **rows}, own_model / "model.safetensors", metadata={"format": "pt"})
    (own_model / "config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    outcome = deca("doctor", *FLAGS)
    assert (outcome.code, verdicts(outcome)["model"], verdicts(outcome)["tokenizer"]) == (13, "ok", "failed")
    assert "tokens, the model only 10" in look(outcome)["tokenizer"]["says"]
    for path in own_model.glob("tokenizer*"):
        path.unlink()
    found = look(deca("doctor", *FLAGS))["tokenizer"]
    assert found["verdict"] == "failed" and "holds no tokenizer that can be read" in found["says"]


@pytest.mark.usefixtures("peer")
def test_chats_need_a_template_that_takes_them(deca: Deca, own_model: Path) -> None:
    write(*[CHAT] * 30)
    (own_model / "chat_template.jinja").unlink(missing_ok=True)
    found = look(deca("doctor", *FLAGS))["tokenizer"]
    assert found["verdict"] == "failed" and "the tokenizer has no chat template" in found["says"]
    (own_model / "chat_template.jinja").write_text("{{ raise_exception('no chats today') }}")
    found = look(deca("doctor", *FLAGS))["tokenizer"]
    assert found["verdict"] == "failed" and "cannot render the chat (no chats today)" in found["says"]
    (own_model / "chat_template.jinja").write_text(TEMPLATE)
    assert look(deca("doctor", *FLAGS))["tokenizer"]["verdict"] == "ok"


@pytest.mark.usefixtures("peer", "place")
def test_too_little_data(deca: Deca) -> None:
    write({"text": "the node"})
    found = look(deca("doctor", *FLAGS))["tokenizer"]
    assert found["verdict"] == "failed" and "are needed" in found["says"]


@pytest.mark.usefixtures("peer", "place")
def test_of_much_data_the_first_records_are_tried(deca: Deca) -> None:
    write(*[{"text": f"the node was {n}"} for n in range(300)], CHAT)
    found = look(deca("doctor", *FLAGS))["tokenizer"]
    assert found["verdict"] == "ok" and "the first 200 records make" in found["says"]
    write({"text": "the node was " * 100_000})
    assert "the first 1,000,000 characters make" in look(deca("doctor", *FLAGS))["tokenizer"]["says"]
    write(*[CHAT] * 300)
    assert "the tokenizer has no chat template" in look(deca("doctor", *FLAGS))["tokenizer"]["says"]
    says = look(deca("doctor", *FLAGS, "--bad-records", "skip"))["tokenizer"]["says"]
    assert "none of the first 200 records can be used; the first:" in says and "no chat template" in says


@pytest.mark.usefixtures("peer", "place")
def test_where_all_records_are_bad_the_first_reason_is_given(deca: Deca) -> None:
    write(*[{"question": "a", "answer": "b"}] * 40)
    outcome = deca("doctor", *FLAGS)
    assert (outcome.code, verdicts(outcome)["tokenizer"]) == (13, "ok")
    says = look(outcome)["data"]["says"]
    assert "there are no usable records (40 are malformed; the first: " in says and "a.jsonl line 1: " in says


@pytest.mark.usefixtures("peer", "place")
def test_a_model_that_the_start_fetches_is_no_failure(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    outcome = deca("doctor", *FLAGS, "--model", "some/model")
    found = look(outcome)
    assert (outcome.code, found["model"]["verdict"]) == (0, "warning")
    assert found["model"]["says"] == "not checked: 'some/model' is not on this machine"
    assert (found["memory"]["verdict"], found["tokenizer"]["verdict"]) == ("skipped", "skipped")
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    outcome = deca("doctor", *FLAGS, "--model", "some/model")
    assert (outcome.code, look(outcome)["model"]["verdict"]) == (13, "failed")


@pytest.mark.usefixtures("peer")
def test_tensors_that_the_model_does_not_take_are_told(deca: Deca, own_model: Path) -> None:
    weights = load_file(own_model / "model.safetensors")
    weights["mtp.norm.weight"] = weights["model.norm.weight"].clone()
    save_file(weights, own_model / "model.safetensors", metadata={"format": "pt"})
    found = look(deca("doctor", *FLAGS))["model"]
    assert found["verdict"] == "warning" and "go into final/ unchanged: mtp.norm.weight" in found["says"]
    del weights["model.norm.weight"]
    save_file(weights, own_model / "model.safetensors", metadata={"format": "pt"})
    found = look(deca("doctor", *FLAGS))["model"]
    assert found["verdict"] == "failed" and "the weights lack model.norm.weight" in found["says"]


@pytest.mark.usefixtures("peer", "place")
def test_architectures_that_puzzled_doctor(deca: Deca, tmp_path: Path) -> None:
    """A width for every layer (Gemma 3n), and experts that the files and the model hold in different tensors."""
    for name, config in {"wide": gemma3n(), "experts": qwen3_moe()}.items():
        folder = tmp_path / name
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        for path in Path("model").glob("tokenizer*"):
            shutil.copy(path, folder)
        outcome = deca("doctor", *FLAGS, "--model", name)
        assert [verdicts(outcome)[check] for check in ("model", "tokenizer", "memory")] == ["ok"] * 3, outcome.out
        assert deca("plan", "--model", name, "--nodes", "2", "--sequence-length", "16").code == 0


@pytest.mark.usefixtures("peer", "place")
@pytest.mark.parametrize("more", [(), ("--device", "cpu"), ("--gradient-checkpointing",), ("--dtype", "bfloat16")])
def test_doctor_and_plan_give_the_same_figure(deca: Deca, more: tuple[str, ...]) -> None:
    """For the same settings and the same peers, on the same machine."""
    flags = ("--model", "model", "--sequence-length", "16", "--json", *more)
    planned = json.loads(deca("plan", "--peers", "peers.txt", *flags).out)
    memory = look(deca("doctor", *FLAGS, *more))["memory"]["facts"]
    assert planned["memory"]["total_bytes"] == memory["peak_bytes"]
    assert {block["block"]: block["total_bytes"] for block in planned["blocks"]} == memory["blocks_bytes"]


@pytest.mark.slow
@pytest.mark.usefixtures("place", "peer")
def test_ranks_are_tried(deca: Deca) -> None:
    found = look(deca("doctor", *FLAGS, "--devices", "cpu*2"))
    assert (found["ranks"]["verdict"], found["ranks"]["facts"]["devices"]) == ("ok", ["cpu", "cpu"])
    assert found["memory"]["says"].count("in all ranks together") == 1
