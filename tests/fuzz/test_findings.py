"""What fuzzing found, one test each; the bytes as they were found, or the plainest that do the same."""

import datetime as dt
import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from transformers import LlamaConfig

from deca_node.daemon.links.greeting import RefusedError
from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security import certificates as certs
from deca_node.daemon.settings.sources import FILE_BYTES_MAX, load_settings
from deca_node.daemon.transfer.partial_file import FORMAT, JOURNAL, PART, PartialFile
from deca_node.daemon.transfer.pieces import PIECE_BYTES, Item
from deca_node.daemon.wire.packets import encode_packet
from deca_node.daemon.wire_pb import control_pb2, exchange_pb2
from deca_node.lab.report.metrics import read_metrics
from deca_node.numerics.model.limits import PARTS_MAX, check_size
from deca_node.numerics.model.load import load_model
from deca_node.protocol.agreed.agreement import Agreement, mismatch
from deca_node.protocol.errors import ModelError, SettingsError
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.alarms import STALE_MIN, STALE_SHARE_MAX, Alarms
from deca_node.protocol.membership.facts import BOOT_MAX, INCARNATION_MAX, MemberFacts, MemberState
from deca_node.protocol.membership.membership import Membership
from deca_node.protocol.membership.profiles import LAN
from deca_node.storage.folder import agreed_fields
from deca_node.storage.jsons import parse
from deca_node.storage.manifest import DamagedError, read_manifest
from tests.fuzz import control, settings, storage
from tests.fuzz.decoders import Finding

NESTED = "[" * 100_000
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


# --- membership --------------------------------------------------------------------------------------


def told(own: MemberFacts, about: MemberFacts) -> tuple[Membership, list[messages.MembershipCommand]]:
    """A member that has heard from b what b believes of it."""
    machine = Membership(own, LAN, Random(1))
    machine.handle(messages.Started(()), 0.0)
    packet = messages.Packet(control.B, messages.Ping(1, own.name), (control.Rumour(about),))
    return machine, machine.handle(messages.PacketReceived(packet), 1.0)


def test_a_lie_of_the_greatest_incarnation_is_refuted_and_what_is_said_can_be_sent() -> None:
    """It was refuted with one more, which is no uint32: the node could say nothing any more, to anybody."""
    about = replace(control.A, incarnation=INCARNATION_MAX, state=MemberState.DEAD)
    machine, commands = told(control.A, about)
    assert machine.own.newer_than(about) and machine.own.state is MemberState.ALIVE
    assert [encode_packet(command.packet) for command in commands if isinstance(command, messages.Send)]
    machine.handle(messages.SetReady(5), 2.0)
    assert machine.own.ready_from == 5 and machine.own.incarnation <= INCARNATION_MAX


def test_a_lie_that_nothing_can_outdo_is_counted_and_no_more() -> None:
    own = replace(control.A, boot=BOOT_MAX)
    machine, commands = told(own, replace(own, incarnation=INCARNATION_MAX, state=MemberState.DEAD))
    assert machine.counters["boots_exhausted"] == 1 and machine.own == own
    assert [encode_packet(command.packet) for command in commands if isinstance(command, messages.Send)]


def test_alarms_that_are_moved_again_and_again_take_no_memory() -> None:
    """A peer that is believed dead and alive by turns moves alarms that ring in half a minute, thousands a second."""
    alarms = Alarms()
    for when in range(10_000):
        alarms.set(("retry", f"n{when % 3}"), 1000.0 + when)
        alarms.cancel(("retry", f"n{when % 2}"))
    assert len(alarms._heap) <= STALE_SHARE_MAX * len(alarms) + STALE_MIN
    assert [alarms.pop_due(20_000.0) for _ in range(3)] == [("retry", "n2"), ("retry", "n0"), None]


# --- greetings ---------------------------------------------------------------------------------------


def test_a_hello_of_ten_thousand_fields_makes_a_short_refusal() -> None:
    theirs = Agreement({f"field{'x' * 300}{number}": "y" * 1000 for number in range(10_000)})
    sentence = mismatch(Agreement({"rounds": "4"}), theirs, "north", "south")
    assert sentence is not None and len(sentence) < 10_000 and sentence.endswith("and 9989 more fields")


def test_a_refusal_without_words_is_told_in_words() -> None:
    assert str(RefusedError(exchange_pb2.Refusal(reason="busy"))) == "it gave no reason"


@pytest.mark.parametrize("address", ["unix:/run/other.sock", "dns://8.8.8.8/x:1", "host", "host:0", "a b:1"])
def test_a_greeting_names_an_address_that_can_be_dialled(address: str) -> None:
    """gRPC takes other kinds of target as well; a member could have had any of them dialled."""
    said = control_pb2.ControlFrame.Greeting(protocol=control.VERSION, name="b", to="a", boot=7, address=address)
    message = control_pb2.ControlFrame(greeting=said).SerializeToString()
    answers = control.answers_to(message)
    assert [answer.refusal.reason for answer in answers] == ["malformed"]


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = " + NESTED, "nested too deeply"),
        ("a = " + "{b = " * 3000, "nested too deeply"),
        ("rounds = " + "9" * 5000, "a number that is too long"),
        ("rounds = 0x" + "f" * 5000, r"beyond 2\^53"),
        ("edge_probability = 0x" + "f" * 5000, "must be a number, got a number with very many digits"),
        ("topology = [0x" + "f" * 5000 + "]", "must be text, got a number with very many digits"),
        ("#" * (FILE_BYTES_MAX + 1), "which no settings file is"),
    ],
    ids=["lists", "tables", "decimal", "hexadecimal", "for a float", "for a text", "length"],
)
def test_settings_from_a_donor_that_no_reader_takes_are_refused_in_words(
    tmp_path: Path, content: str, words: str
) -> None:
    """A newcomer reads the run's settings as a member gives them; it ended with a traceback."""
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=words):
        load_settings({}, {}, path, None)


@pytest.mark.parametrize("index", ["0.0", "0.5", "true", "NaN", "9" * 5000, NESTED, "[0]", '"0"'])
def test_a_journal_that_claims_odd_pieces_claims_nothing(tmp_path: Path, index: str) -> None:
    item = Item(3, "layers.0", 100)
    head = json.dumps({"format": FORMAT, "label": "run", "bytes": 100, "piece_bytes": PIECE_BYTES})
    sha256 = hashlib.sha256(bytes(100)).hexdigest()
    claim = f'{{"piece": {index}, "sha256": "{sha256}", "copy": "{sha256}"}}'
    (tmp_path / f"{item.file}{JOURNAL}").write_text(f"{head}\n{claim}\n")
    (tmp_path / f"{item.file}{PART}").write_bytes(bytes(100))
    assert PartialFile(tmp_path, item, "run").held == {}


def test_json_that_is_nested_too_deeply_is_malformed_like_any_other() -> None:
    with pytest.raises(ValueError, match="nested"):
        parse(NESTED)


def test_odd_lines_of_metrics_are_counted_and_an_odd_run_json_says_nothing(tmp_path: Path) -> None:
    """Numbers without an end, whole numbers that are no float, and structures without a bottom."""
    (tmp_path / "metrics.jsonl").write_bytes(storage.HUGE + b"\n" + NESTED.encode() + b"\n[]\n3\n")
    assert read_metrics(tmp_path / "metrics.jsonl").unreadable == 4
    for content in (NESTED, '{"agreement": 3}', '{"agreement": ["x"]}', "[]"):
        (tmp_path / "run.json").write_text(content)
        assert agreed_fields(tmp_path) == {}


def test_a_manifest_with_a_number_that_is_no_float_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "000006-00003"
    folder.mkdir(parents=True)
    huge = storage._manifests()[0][1:].replace(b'"written": 5.0', b'"written": ' + b"9" * 400)
    (folder / "manifest.json").write_bytes(storage._mended(huge))
    with pytest.raises(DamagedError, match="too large"):
        read_manifest(folder)


@pytest.mark.parametrize("line", [b"\x80", NESTED.encode(), b'{"not_after": 3, "name": "north", "key": "x"}'])
def test_a_damaged_book_of_issued_certificates_is_named(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(certs.CertificateError, match=r"issued\.jsonl line 1 is damaged"):
        approved_beside(tmp_path, line)


def test_a_date_without_a_time_zone_in_that_book_is_one_of_this_machine(tmp_path: Path) -> None:
    """It was compared with a date that has one, which Python refuses."""
    approved_beside(tmp_path, b'{"not_after": "2026-01-01", "name": "north", "key": "x"}')
    assert (tmp_path / "north.crt").exists()


def approved_beside(tmp_path: Path, line: bytes) -> None:
    """A certificate is asked for where the authority's book has this line."""
    authority.init(tmp_path / "ca", "wards.example", NOW)
    request = enrolment.request(tmp_path / "north", certs.NodeId("wards.example", "north"))
    (tmp_path / "ca" / "issued.jsonl").write_bytes(line + b"\n")
    authority.approve(tmp_path / "ca", request, tmp_path / "north.crt", NOW)


# --- models ------------------------------------------------------------------------------------------


def folder_with(tmp_path: Path, config: dict[str, object]) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def test_a_config_of_a_billion_layers_is_refused_before_they_are_built(tmp_path: Path) -> None:
    """transformers makes a list of them first. Without a limit this test would not end."""
    for config in ({"num_hidden_layers": 10**9}, {"text_config": {"n_layer": 10**9}}, {"num_local_experts": 1e12}):
        with pytest.raises(ModelError, match=f"above {PARTS_MAX:,}"):
            load_model(folder_with(tmp_path, {"model_type": "llama", **config}))


def test_a_config_that_describes_far_more_than_the_weights_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    config = LlamaConfig(hidden_size=4096, intermediate_size=16384, num_hidden_layers=100, vocab_size=10**6)
    with pytest.raises(ModelError, match="and the weights hold 1,000"):
        check_size(1000, config, tmp_path)


@pytest.mark.parametrize("shard", [[1], 3, "../other/model.safetensors", "/etc/passwd", ".", "9" * 256, "é" * 128])
def test_an_index_names_files_beside_it(tmp_path: Path, shard: object) -> None:
    folder = folder_with(tmp_path, {"model_type": "llama"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match="names no file beside it"):
        load_model(folder)


# --- HTTP --------------------------------------------------------------------------------------------


def test_a_token_that_is_no_text_is_a_wrong_token() -> None:
    """It was an error of the server's, with a traceback in the log."""
    settings._http(b"\2GET /v1/status HTTP/1.1\r\nHost: 10.0.0.5\r\nAuthorization: Bearer \xff\r\n\r\n")


def test_what_is_no_http_leaves_no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        settings._http(b"\1GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert caplog.records == []


def test_the_harness_notices_a_mistake_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the two tests above mean something."""
    monkeypatch.setattr("deca_node.daemon.web.guard.hmac.compare_digest", lambda *_: 1 / 0)
    with pytest.raises(Finding, match="500"):
        settings._http(b"\2GET /v1/status HTTP/1.1\r\nHost: 10.0.0.5\r\nAuthorization: Bearer x\r\n\r\n")
