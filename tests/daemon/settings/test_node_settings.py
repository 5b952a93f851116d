"""Settings: which source wins, the sentence of each error, and the checks before a start."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.before_start import check_paths, check_plaintext, check_required, settle
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import policy_of
from deca_node.daemon.settings.sources import (
    FILES,
    Loaded,
    SourcedValue,
    flag_of,
    load_settings,
    setting_names,
    variable_of,
)
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import DataError, DecaError, ModelError, SettingsError, StorageError

OWN = ("north", Address("10.0.0.5", 7001))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Loaded]:
    """Load settings from the texts of files in a temporary folder."""
    monkeypatch.chdir(tmp_path)

    def loaded(
        flags: dict[str, object] | None = None,
        environ: dict[str, str] | None = None,
        run: str = "",
        node: str = "",
    ) -> Loaded:
        Path("run.toml").write_text(run)
        Path("node.toml").write_text(node)
        return load_settings(flags or {}, environ or {}, Path("run.toml"), Path("node.toml"))

    return loaded


def test_names_are_unique_across_both_kinds() -> None:
    names = [name for kind in FILES for name in setting_names(kind)]
    assert len(names) == len(set(names))
    assert flag_of("inner_steps") == "--inner-steps"
    assert variable_of("inner_steps") == "DECA_INNER_STEPS"


def test_every_setting_has_help_and_a_default_of_its_type() -> None:
    for field in (*dataclasses.fields(RunSettings), *dataclasses.fields(NodeSettings)):
        assert field.metadata["help"].endswith("."), field.name
        assert type(field.default) is field.type, field.name


def test_defaults_alone(load: Callable[..., Loaded]) -> None:
    loaded = load()
    assert (loaded.run, loaded.node) == (RunSettings(), NodeSettings())
    assert {source.where for source in loaded.sources.values()} == {"default"}


@pytest.mark.parametrize(
    ("flags", "environ", "run", "source"),
    [
        ({"rounds": "5"}, {"DECA_ROUNDS": "6"}, "rounds = 7", SourcedValue(5, "--rounds")),
        ({}, {"DECA_ROUNDS": "6"}, "rounds = 7", SourcedValue(6, "DECA_ROUNDS")),
        ({}, {"DECA_ROUNDS": ""}, "rounds = 7", SourcedValue(7, "run.toml:rounds")),
        ({}, {}, "", SourcedValue(4, "default")),
    ],
    ids=["flag", "variable", "file", "default"],
)
def test_the_first_source_wins(
    load: Callable[..., Loaded], flags: dict[str, object], environ: dict[str, str], run: str, source: SourcedValue
) -> None:
    loaded = load(flags, environ, run)
    assert loaded.sources["rounds"] == source
    assert loaded.run.rounds == source.value


def test_both_kinds_follow_the_same_rule(load: Callable[..., Loaded]) -> None:
    loaded = load({"device": "cpu"}, {"DECA_THREADS": "2"}, node='model = "m"\nholdout = 0.25')
    assert (loaded.node.device, loaded.node.threads, loaded.node.model, loaded.node.holdout) == ("cpu", 2, "m", 0.25)
    where = {name: source.where for name, source in loaded.sources.items() if source.where != "default"}
    assert where == {
        "device": "--device",
        "threads": "DECA_THREADS",
        "model": "node.toml:model",
        "holdout": "node.toml:holdout",
    }


@pytest.mark.parametrize("text", ["true", "Yes", "on", "1"])
def test_a_switch_in_the_environment(load: Callable[..., Loaded], text: str) -> None:
    assert load(environ={"DECA_GRADIENT_CHECKPOINTING": text}).node.gradient_checkpointing is True


def test_a_whole_number_does_for_a_number(load: Callable[..., Loaded]) -> None:
    """The fingerprint must not depend on the spelling of 1.0."""
    assert repr(load(run="beta1 = 1").run.beta1) == "1.0"
    assert repr(load(environ={"DECA_BETA1": "1"}).run.beta1) == "1.0"


def test_variables_that_kubernetes_adds_are_no_settings(load: Callable[..., Loaded]) -> None:
    links = ("SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT", "PORT_7001_TCP", "PORT_7001_TCP_ADDR", "NODE_SERVICE_HOST")
    assert load(environ={f"DECA_{link}": "x" for link in links} | {"DECADE": "x"}).run == RunSettings()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"run": "ronds = 4"}, "run.toml: there is no setting 'ronds'; did you mean 'rounds'?"),
        ({"run": 'model = "m"'}, "run.toml: 'model' belongs to node.toml, because it concerns this node only"),
        ({"node": "rounds = 4"}, "node.toml: 'rounds' belongs to run.toml, because it must be equal on all nodes"),
        (
            {"run": "[optimizer]"},
            "run.toml: [optimizer] is a table; write settings at the top of the file, without tables",
        ),
        ({"run": "rounds = \nseed = 1"}, "run.toml is not valid TOML: Invalid value (at line 1, column 10)"),
        ({"run": "rounds = 4.0"}, "run.toml:rounds must be a whole number, got 4.0"),
        ({"run": "rounds = true"}, "run.toml:rounds must be a whole number, got True"),
        ({"run": 'rounds = "4"'}, "run.toml:rounds must be a whole number, got '4'"),
        ({"run": "run_name = 4"}, "run.toml:run_name must be text, got 4"),
        ({"node": "gradient_checkpointing = 1"}, "node.toml:gradient_checkpointing must be true or false, got 1"),
        ({"flags": {"rounds": "many"}}, "--rounds must be a whole number, got 'many'"),
        ({"environ": {"DECA_BETA1": "half"}}, "DECA_BETA1 must be a number, got 'half'"),
        (
            {"environ": {"DECA_GRADIENT_CHECKPOINTING": "maybe"}},
            "DECA_GRADIENT_CHECKPOINTING must be true or false, got 'maybe'",
        ),
        (
            {"environ": {"DECA_LERNING_RATE": "1"}},
            "the environment sets DECA_LERNING_RATE, which is not a setting; did you mean 'DECA_LEARNING_RATE'?",
        ),
        ({"flags": {"rounds": "0"}}, "rounds = 0 is below its smallest value, 1 (rounds comes from --rounds)"),
        (
            {"environ": {"DECA_LEARNING_RATE": "nan"}},
            "learning_rate = nan is not a finite number (learning_rate comes from DECA_LEARNING_RATE)",
        ),
        (
            {"node": 'log_level = "warn"'},
            "log_level = 'warn' is not one of debug, info, warning, error; did you mean 'warning'? "
            "(log_level comes from node.toml:log_level)",
        ),
        ({"flags": {"insecure": 3}}, "insecure = 3 is above its largest value, 2 (insecure comes from --insecure)"),
        (
            {"flags": {"device": "gpu"}},
            "device = 'gpu' is not auto, cpu, cuda, cuda:N or mps (device comes from --device)",
        ),
        (
            {"flags": {"listen": "7001"}},
            "listen = '7001' has no port; write host:port (listen comes from --listen)",
        ),
        (
            {"flags": {"exchange": "overlap"}, "run": "gamma_c = 1.0"},
            "exchange = 'overlap' needs gamma_c <= 0.5, got 1.0: flows one step late on every edge diverge above "
            "that bound (exchange comes from --exchange, gamma_c comes from run.toml:gamma_c)",
        ),
    ],
)
def test_every_refusal_names_the_place(load: Callable[..., Loaded], given: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(**given)
    assert str(refused.value) == sentence


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"run\.toml cannot be read: No such file or directory"):
        load_settings({}, {}, tmp_path / "run.toml", None)
    (tmp_path / "node.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"node\.toml is not UTF-8 text"):
        load_settings({}, {}, None, tmp_path / "node.toml")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3"])
def test_devices(device: str) -> None:
    assert NodeSettings(device=device).device == device


def test_the_own_line_fills_in_name_and_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ward")
    node = settle(NodeSettings(model="~/model", data="~/notes.jsonl"), *OWN)
    assert (node.name, node.listen, node.dir) == ("north", "10.0.0.5:7001", "deca-data/north")
    assert (node.model, node.data) == ("/home/ward/model", "/home/ward/notes.jsonl")


def test_a_home_folder_of_an_unknown_user() -> None:
    with pytest.raises(SettingsError, match="~no-such-user/d: Could not determine home directory"):
        settle(NodeSettings(data="~no-such-user/d"), *OWN)


def test_given_settings_stay() -> None:
    node = settle(NodeSettings(dir="/srv/deca", model="Qwen/Qwen2.5-3B", data="d"), *OWN)
    assert (node.dir, node.model) == ("/srv/deca", "Qwen/Qwen2.5-3B")


def test_model_and_data_are_required() -> None:
    with pytest.raises(SettingsError) as refused:
        check_required(NodeSettings(data="d"), "model", "data")
    assert str(refused.value) == "model is not set; give --model, DECA_MODEL, or model in node.toml"
    check_required(NodeSettings(model="m", data="d"), "model", "data")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model, data, and a file that is neither."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    for file in ("notes.jsonl", "file"):
        Path(file).write_text("")
    return tmp_path


@pytest.mark.parametrize("model", ["model", "./model", "gpt2", "Qwen/Qwen2.5-3B"])
@pytest.mark.parametrize("data", ["notes.jsonl", "model"])
def test_paths_and_hub_ids_that_may_be(folder: Path, model: str, data: str) -> None:
    check_paths(NodeSettings(model=model, data=data, dir="new"))


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ({"model": "./gone"}, ModelError, "there is no folder ./gone; a model is a folder with config.json and *.sa"),
        ({"model": "file"}, ModelError, "there is no folder file; a model is a folder"),
        ({"model": "a/b/c"}, ModelError, "there is no folder a/b/c, and a/b/c is not the id of a model on the hub"),
        ({"data": "gone.jsonl"}, DataError, "there is no data at gone.jsonl"),
        ({"dir": "file"}, StorageError, "file must be this node's folder, but it is a file; choose another --dir"),
    ],
)
def test_paths_that_cannot_work(folder: Path, wrong: dict[str, str], error: type[DecaError], sentence: str) -> None:
    settings = NodeSettings(**({"model": "model", "data": "notes.jsonl", "dir": "new"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(error) as refused:
        check_paths(settings)
    assert str(refused.value).startswith(sentence)


def test_data_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DataError, match=r"the data at notes\.jsonl may not be read by this user"):
        check_paths(NodeSettings(model="model", data="notes.jsonl", dir="new"))


@pytest.mark.parametrize(
    ("insecure", "listen", "peers", "notice"),
    [
        (1, "127.0.0.1", ["localhost", "::1"], "listening on 127.0.0.1 in plaintext, within this machine only"),
        (
            2,
            "0.0.0.0",
            ["10.0.0.6"],
            "listening on 0.0.0.0 in plaintext: anyone on the path can read and change what the nodes exchange",
        ),
    ],
)
def test_plaintext_is_allowed_aloud(insecure: int, listen: str, peers: list[str], notice: str) -> None:
    assert check_plaintext(insecure, listen, peers) == notice


@pytest.mark.parametrize(
    ("insecure", "listen", "peers", "sentence"),
    [
        (
            1,
            "0.0.0.0",
            [],
            "with one --insecure a node listens on loopback addresses only, and 0.0.0.0 is not one; "
            "give --insecure twice to use plaintext on any network",
        ),
        (
            1,
            "127.0.0.1",
            ["::1", "ward-2"],
            "with one --insecure a node dials loopback addresses only, and the peer at ward-2 is elsewhere; "
            "give --insecure twice to use plaintext on any network",
        ),
    ],
)
def test_plaintext_is_never_a_silent_fallback(insecure: int, listen: str, peers: list[str], sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_plaintext(insecure, listen, peers)
    assert str(refused.value) == sentence


def test_a_limit_on_private_gradients_that_are_none_is_refused() -> None:
    """A user who sets a budget believes that training is private."""
    with pytest.raises(
        SettingsError, match=r"^dp_epsilon = 8 limits the cost of private gradients, but with dp_noise = 0"
    ):
        NodeSettings(dp_epsilon=8.0)
    assert NodeSettings(dp_epsilon=8.0, dp_noise=1.0).dp_epsilon == 8.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("exit", 0.0),
        ("stay", 0.0),
        ("stay 90s", 90.0),
        ("stay 10m", 600.0),
        ("stay 24h", 86_400.0),
        ("stay 2d", 172_800.0),
    ],
)
def test_how_long_a_node_stays_after_its_run(text: str, seconds: float) -> None:
    policy = policy_of(NodeSettings(after_run=text))
    assert (policy.stay, policy.stay_seconds) == (text != "exit", seconds)


@pytest.mark.parametrize("text", ["", "leave", "stay 24", "stay24h", "stay 0h", "stay -1h", "exit 1h", "stay 1h "])
def test_what_a_node_does_after_its_run_is_checked(text: str) -> None:
    with pytest.raises(SettingsError, match="is not exit, stay, or stay with a time"):
        NodeSettings(after_run=text)
