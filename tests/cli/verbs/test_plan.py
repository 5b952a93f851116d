"""``plan``: the question from flags and files, the answer as tables and as JSON, and the advice that follows."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.cli.verbs.plan import BANDWIDTH, LATENCY, MEMORY, Quantity
from deca_node.protocol.agreed.run import RunSettings

Deca = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 512,
    "dtype": "bfloat16",
}
EMBEDDING, LAYER, HEAD = 50 * 32, 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32, 50 * 32 + 32


@pytest.fixture
def plan(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> Deca:
    """``plan(...)`` in a folder with a model's config, on a page wide enough for its tables."""
    monkeypatch.setenv("COLUMNS", "140")
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(CONFIG))
    return lambda *arguments: deca("plan", "--model", "model", *arguments)


def read_json(plan: Deca, *arguments: str) -> dict[str, Any]:
    outcome = plan("--json", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads(outcome.out)


# --- the answer -------------------------------------------------------------------------------------


def test_json_is_exact_and_names_its_units(plan: Deca) -> None:
    found = read_json(
        plan,
        *("--nodes", "3", "--topology", "full", "--rounds", "1", "--inner-steps", "4"),
        *("--codec", "bf16", "--signal", "none"),
    )
    elements = [EMBEDDING, LAYER, LAYER, LAYER, HEAD]
    assert [block["parameters"] for block in found["blocks"]] == elements
    assert [block["block"] for block in found["blocks"]] == ["embedding", "layers.0", "layers.1", "layers.2", "head"]
    assert found["model"] == {"name": "model", "parameters": sum(elements), "bytes_per_parameter": 2}
    assert list(found["traffic"]) == ["node-1", "node-2", "node-3"]
    sent = found["traffic"]["node-2"]
    assert found["final_flush"]["mixes"] == 3, "a full graph agrees at once, and three mixes shed the keyframe's error"
    keyframes = sum(n + 4 * -(-n // 256) for n in elements)
    assert sent["keyframe_bytes"] == 2 * 2 * keyframes, "two neighbours, a round and the final flush"
    updates = 2 * (4 + 2 + 3)
    assert sent["update_bytes"] == updates * (2 * sum(elements) + 20 * 5), "R steps, a visit's flush, the final one"
    assert sent["sent_bytes"] == sent["received_bytes"] == sum(list(sent.values())[:3])
    assert found["memory"]["block"] == max(found["blocks"], key=lambda block: block["total_bytes"])["block"]
    assert found["memory"]["fits"] is None
    lockstep = found["time"]["lockstep"]
    assert lockstep["total_seconds"] == pytest.approx(lockstep["compute_seconds"] + lockstep["transfer_seconds"])


def test_signals_are_in_the_plan(plan: Deca) -> None:
    """One byte per 256 elements for v, int8 for m; the second exchange of three carries none, nor does the last."""
    flags = ("--nodes", "2", "--rounds", "1", "--inner-steps", "4", "--codec", "int8", "--mix-every", "1")
    plain, with_v, with_mv = (
        read_json(plan, *flags, "--signal", signal, "--signal-every", "2") for signal in ("none", "v", "mv")
    )
    elements = [EMBEDDING, LAYER, LAYER, LAYER, HEAD]
    v = [4 + -(-n // 256) for n in elements]
    m = [n + 4 * -(-n // 256) for n in elements]
    assert [block["signal_bytes"] for block in with_v["blocks"]] == v
    assert [block["signal_bytes"] for block in with_mv["blocks"]] == [a + b for a, b in zip(v, m, strict=True)]
    sent = {name: found["traffic"]["node-1"]["update_bytes"] for name, found in (("plain", plain), ("v", with_v))}
    assert sent["v"] - sent["plain"] == 2 * sum(v), "exchanges 0 and 2"
    assert with_mv["traffic"]["node-1"]["update_bytes"] - sent["v"] == 2 * sum(m)
    assert {"--signal v"} == {a["change"] for a in with_mv["advice"]["alternatives"] if "signal" in a["change"]}


def test_the_run_is_chosen_by_the_line_and_written(plan: Deca, deca: Deca) -> None:
    """A fast line gets the first rung, a slow one the last; the file holds the choice and what was given."""
    question = ("--nodes", "4", "--rounds", "4", "--inner-steps", "12", "--step-seconds", "1")
    fast, slow = (
        read_json(plan, *question, "--bandwidth", line, "--rtt", "2ms", "--write", f"{line}.toml")["choice"]
        for line in ("10Gbit", "1kbit")
    )
    assert (fast["chosen"], fast["reached"], slow["chosen"], slow["reached"]) == ("lan", True, "home", False)
    assert len(slow["ladder"]) == 12 and slow["share"] == 0.25
    written = tomllib.loads(Path("1kbit.toml").read_text())
    assert (written["topology"], written["moments_every"], written["moment_bits"]) == ("pairs", 1, 1)
    assert (written["mix_every"], written["inner_steps"]) == (12, 12)
    assert RunSettings(**written).codec == "int4"
    again = plan(*question, "--write", "1kbit.toml")
    assert again.code == 3 and "--write overwrites nothing, and 1kbit.toml exists" in again.err


def test_a_preset_is_planned_and_what_is_set_stays(plan: Deca) -> None:
    found = read_json(plan, "--nodes", "4", "--preset", "wan", "--codec", "bf16")
    settings = found["settings"]
    assert (settings["mix_every"], settings["moment_bits"], settings["codec"]) == (10, 1, "bf16")
    assert "choice" not in found
    both = plan("--nodes", "4", "--preset", "wan", "--choose")
    assert both.code == 3 and "--preset and --choose both say how to exchange" in both.err


def test_the_choice_in_words(plan: Deca) -> None:
    outcome = plan("--nodes", "4", "--choose", "--bandwidth", "1kbit", "--step-seconds", "1")
    assert outcome.code == 0
    assert "> home" in outcome.out and "Chosen: home" in outcome.out
    assert "more than the given share, and no rung adds less" in " ".join(outcome.out.split())


def test_tables_for_people(plan: Deca) -> None:
    page = plan("--nodes", "4", "--topology", "ring", "--memory", "24GB", "--bandwidth", "1Gbit").out
    assert re.search(rf"layers\.0 to layers\.2 +│ +{LAYER:,} ", page), "equal blocks stand in one row"
    for words in (
        ", with block layers.0; this fits in",
        "this fits in the given 24 GB",
        "a node with 2 neighbours sends",
        "at 1,000 Mbit/s each way, 20 ms one way, 20 TFLOP/s",
        "Graph: 4 edges, spectral gap 0.667. A mix leaves 33.3% of a disagreement; after 9 mixes 0.01% is left.",
        "The network takes longest",
    ):
        assert words in page
    assert "MORE THAN the given 1 MB" in plan("--nodes", "4", "--memory", "1MB").out


def test_a_node_alone(plan: Deca) -> None:
    found = read_json(plan, "--nodes", "1")
    assert found["traffic"]["node-1"]["sent_bytes"] == 0
    assert found["advice"]["sentence"] == "Compute takes longest. No single setting shortens the run by 5% or more."
    assert plan("--nodes", "1").code == 0


# --- the question -----------------------------------------------------------------------------------


def test_names_come_from_the_peers_file(plan: Deca) -> None:
    Path("peers.txt").write_text("north@127.0.0.1:7001\nsouth@127.0.0.1:7002\n")
    assert set(read_json(plan)["traffic"]) == {"north", "south"}
    assert len(read_json(plan, "--nodes", "12")["traffic"]) == 12
    Path("others.txt").write_text("east@127.0.0.1:7001\n")
    assert set(read_json(plan, "--peers", "others.txt")["traffic"]) == {"east"}


def test_every_run_setting_counts_whichever_way_it_comes(plan: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run.toml").write_text('codec = "int4"\nblock_layers = 2\n')
    Path("node.toml").write_text("micro_batch = 2\ngradient_checkpointing = true\ndevice = 'cpu'\n")
    monkeypatch.setenv("DECA_ROUNDS", "7")
    found = read_json(plan, "--nodes", "3", "--inner-steps", "5")
    assert [found["settings"][name] for name in ("codec", "rounds", "inner_steps")] == ["int4", 7, 5]
    assert [block["block"] for block in found["blocks"]] == ["embedding", "layers.0-1", "layers.2", "head"]
    assert [found["machine"][name] for name in ("micro_batch", "gradient_checkpointing", "one_memory")] == [
        2,
        True,
        True,
    ]


def test_a_measured_step_replaces_the_guess(plan: Deca) -> None:
    found = read_json(plan, "--nodes", "3", "--rounds", "1", "--inner-steps", "10", "--step-seconds", "2")
    assert found["time"]["lockstep"]["compute_seconds"] == pytest.approx(2 * 10 * 5)
    guessed = read_json(plan, "--nodes", "3", "--tflops", "1")["machine"]["flops_per_second"]
    assert guessed == 1e12


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (BANDWIDTH, "100Mbit", 1e8),
        (BANDWIDTH, "2.5 Gbit/s", 2.5e9),
        (BANDWIDTH, "10MB/s", 8e7),
        (LATENCY, "40ms", 0.04),
        (MEMORY, "24GB", 24e9),
        (MEMORY, "24GiB", 24 * 2**30),
    ],
)
def test_quantities(quantity: Quantity, text: str, value: float) -> None:
    assert quantity.convert(text, None, None) == pytest.approx(value)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 3, "error: the number of nodes is not known; give --nodes, or --peers with a file that names them"),
        (["--nodes", "2", "--model", ""], 3, "error: model is not set; give --model"),
        (["--nodes", "2", "--model", "./gone"], 5, "error: there is no folder './gone'"),
        (
            ["--nodes", "2", "--sequence-length", "513"],
            5,
            "error: sequence_length = 513 is more than the 512 positions",
        ),
        (["--nodes", "2", "--rounds", "0"], 3, "error: rounds = 0 is below its smallest value"),
        (["--peers", "gone.txt"], 4, "error: the peers file gone.txt cannot be read"),
        (["--nodes", "0"], 2, "0 is not in the range 1<=x<=128"),
        (
            ["--nodes", "2", "--bandwidth", "100"],
            2,
            "'100' is no bandwidth; write a number above zero and one of kbit,",
        ),
        (["--nodes", "2", "--bandwidth", "0Mbit"], 2, "'0Mbit' is no bandwidth; write a number above zero"),
        (["--nodes", "2", "--memory", "much"], 2, "'much' is no memory; write a number above zero and one of MB, GB,"),
        (["--nodes", "2", "--step-seconds", "0"], 2, "0.0 is not in the range x>0"),
    ],
)
def test_refusals(plan: Deca, arguments: list[str], code: int, said: str) -> None:
    outcome = plan(*arguments)
    assert outcome.code == code
    assert said in outcome.err
    assert outcome.out == ""


def test_help_has_examples_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from deca_node.cli.main import main\n"
        "assert main(['plan', '--help']) == 0\n"
        "assert not {'torch', 'transformers', 'grpc', 'numpy', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert re.search(r"Examples:\n(.*\n)*? +.*deca-node plan --model", done.stdout)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--device", "cpu"],
            "All times assume that a node sustains 20 TFLOP/s. That is a GPU, and a CPU is far slower",
        ),
        ([], "All times assume that a node sustains 20 TFLOP/s. Give --step-seconds"),
        (["--tflops", "0.5"], "All times assume that a node sustains 0.5 TFLOP/s.\n"),
        (["--step-seconds", "2"], "All times follow from 2 s per gradient step.\n"),
    ],
)
def test_the_assumption_behind_all_times_stands_above_the_tables(plan: Deca, flags: list[str], said: str) -> None:
    _, _, rest = plan("--nodes", "2", *flags).out.partition("\n\n")
    assert rest.startswith(said)


def test_it_leads_with_what_a_run_sends_and_the_setting_that_halves_it(plan: Deca) -> None:
    says = plan("--nodes", "2").out.split("\n")[0]
    halved = read_json(plan, "--nodes", "2", "--mix-every", "2")["traffic"]["node-1"]["sent_bytes"]
    sent = read_json(plan, "--nodes", "2")["traffic"]["node-1"]["sent_bytes"]
    assert 0.45 <= halved / sent <= 0.55
    assert says.startswith("Each node sends 8.93 MB in the whole run, and receives as much. --mix-every 2 halves it.")
    assert plan("--nodes", "1").out.startswith("One node alone sends nothing.\n")


def test_memory_is_counted_as_doctor_counts_it(plan: Deca, deca: Deca) -> None:
    """Without a device in the settings both take this machine's."""
    Path("peers.txt").write_text("a@127.0.0.1:9001\nb@127.0.0.1:9002\n")
    Path("a.jsonl").write_text('{"text": "the node was here"}\n')
    flags = ("--insecure", "--name", "a", "--data", "a.jsonl", "--model", "model", "--seconds", "0.1", "--json")
    findings = json.loads(deca("doctor", *flags).out)["findings"]
    (memory,) = (finding for finding in findings if finding["check"] == "memory")
    assert read_json(plan)["memory"]["total_bytes"] == memory["facts"]["peak_bytes"]


def test_numbers_agree_with_their_nouns(plan: Deca) -> None:
    assert "Graph: 1 edge, spectral" in plan("--nodes", "2").out
    assert "a node with 1 neighbour sends " in " ".join(plan("--nodes", "2").out.split())
    assert "a node with 2 neighbours sends " in " ".join(plan("--nodes", "5", "--topology", "ring").out.split())


def test_ranks_are_counted(plan: Deca) -> None:
    """The cards need not be here. On a CPU the ranks share one memory."""
    size = ("--nodes", "2", "--batch-size", "8")
    one, cards, cpus = (read_json(plan, *size, *more) for more in ((), ("--devices", "cuda*2"), ("--devices", "cpu*2")))
    assert (one["machine"]["ranks"], one["memory"]["follower_bytes"]) == (1, 0)
    assert (cards["machine"]["ranks"], cards["machine"]["one_memory"]) == (2, False)
    assert 0 < cards["memory"]["follower_bytes"] < cards["memory"]["total_bytes"]
    assert cpus["memory"]["total_bytes"] > cpus["memory"]["follower_bytes"] + cards["memory"]["total_bytes"]
    assert "at rank 0; each of the other 1 takes" in " ".join(plan(*size, "--devices", "cuda*2").out.split())


def test_a_model_is_sharded_if_a_whole_one_does_not_fit(plan: Deca) -> None:
    size = ("--nodes", "2", "--batch-size", "8", "--devices", "cuda*4")
    whole = read_json(plan, *size)
    tight = read_json(plan, *size, "--memory", f"{whole['memory']['total_bytes'] / 1e6:.3f}MB")
    assert (whole["machine"]["sharded"], tight["machine"]["sharded"]) == (False, True)
    said = " ".join(plan(*size, "--parallel", "shard").out.split())
    assert "the model sharded over 4 ranks at rank 0; each of the other 3 takes" in said
