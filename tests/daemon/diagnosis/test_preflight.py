"""Checks of folder, disk, port and clock before a start. They leave nothing behind."""

import fcntl
import json
import socket
import time
from pathlib import Path

import pytest

from deca_node.daemon.diagnosis import preflight
from deca_node.daemon.diagnosis.findings import Verdict
from deca_node.daemon.settings.address import Address
from deca_node.protocol.agreed.agreement import Agreement, settings_fields
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError
from deca_node.storage.manifest import DataPlace, Manifest, folder_of, write_manifest

RUN = RunSettings()


def leave_checkpoint(folder: Path, settings: RunSettings) -> None:
    agreement = Agreement(settings_fields(settings))
    manifest = Manifest(agreement, Step(3, 0), {}, None, DataPlace(0, 0, 1), {}, 0.0)
    folder_of(folder, manifest.position).mkdir(parents=True)
    write_manifest(folder_of(folder, manifest.position), manifest)


def test_a_new_folder_is_not_made(tmp_path: Path) -> None:
    found = preflight.check_folder(tmp_path / "data" / "north", RUN)
    assert (found.verdict, list(tmp_path.iterdir())) == (Verdict.OK, [])


def test_a_folder_with_a_checkpoint_of_this_run_or_of_another(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path, RUN)
    found = preflight.check_folder(tmp_path, RUN)
    assert (found.verdict, found.says) == (Verdict.OK, "a start goes on from activation 3 step 0")
    found = preflight.check_folder(tmp_path, RunSettings(rounds=9))
    assert found.verdict is Verdict.FAILED
    assert found.says.endswith("the run differs in rounds")


def test_a_damaged_checkpoint_is_a_warning(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path, RUN)
    (folder_of(tmp_path, Step(3, 0)) / "manifest.json").write_text("{")
    assert preflight.check_folder(tmp_path, RUN).verdict is Verdict.WARNING


def test_a_folder_in_use_and_a_complete_one(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = preflight.check_folder(tmp_path, RUN)
        assert (found.verdict, "(process 4711)" in found.says) == (Verdict.WARNING, True)
    (tmp_path / "final").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"agreement": settings_fields(RUN)}))
    found = preflight.check_folder(tmp_path, RUN)
    assert (found.verdict, "complete" in found.says) == (Verdict.WARNING, True)
    with pytest.raises(StorageError, match="another run"):
        preflight.check_folder(tmp_path, RunSettings(rounds=9))


def test_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "there").write_bytes(bytes(1000))
    monkeypatch.setattr(preflight, "write_speed", lambda *_: 1e9)
    found = preflight.check_disk(tmp_path / "north", {"start": 3000, "checkpoints": 500})
    assert found.verdict is Verdict.OK
    assert "the run will write 2.5 kB to" in found.says and "3.5 kB are for checkpoints" in found.says
    assert (found.facts["needed_bytes"], found.facts["present_bytes"]) == (3500, 1000)
    found = preflight.check_disk(tmp_path / "north", {"start": 10**18})
    assert (found.verdict, found.do.startswith("make room for")) == (Verdict.FAILED, True)
    monkeypatch.setattr(preflight, "write_speed", lambda *_: 1e6)
    found = preflight.check_disk(tmp_path / "north", {"checkpoints": 4 * 10**6})
    assert (found.verdict, found.do) == (
        Verdict.WARNING,
        "use a faster disk: one checkpoint within a visit takes 2 s here",
    )


def test_the_speed_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    assert preflight.write_speed(tmp_path, 1 << 20) > 0
    assert list(tmp_path.iterdir()) == []
    assert preflight.write_speed(tmp_path / "nowhere", 1 << 20) == 0


def test_a_port_that_is_taken() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = Address("127.0.0.1", listener.getsockname()[1])
        found = preflight.check_port("listen", address, "--listen")
        assert (found.verdict, found.do) == (
            Verdict.FAILED,
            "stop the program that listens there, or choose another --listen",
        )
    assert preflight.check_port("listen", address, "--listen").verdict is Verdict.OK
    assert preflight.check_port("http", Address("203.0.113.7", 80), "--http").verdict is Verdict.FAILED


def test_variables_that_redirect_other_programs_are_named() -> None:
    assert list(preflight.check_environment({"PATH": "/bin"})) == []
    (found,) = preflight.check_environment({"http_proxy": "http://proxy.example:3128", "ALL_PROXY": "socks5://p:1"})
    assert (found.verdict, found.facts["names"]) == (Verdict.OK, ["ALL_PROXY", "http_proxy"])
    assert "the environment sets ALL_PROXY, http_proxy: traffic between nodes" in found.says


def test_the_clock(tmp_path: Path) -> None:
    file = tmp_path / "peers.txt"
    file.touch()
    now, files = time.time(), [file, tmp_path / "missing"]
    assert preflight.check_clock(now, files, {}).verdict is Verdict.OK
    found = preflight.check_clock(now - 3600, files, {})
    assert (found.verdict, str(file) in found.says) == (Verdict.FAILED, True)
    found = preflight.check_clock(now, files, {"south": 0.5, "west": -1.5})
    assert (found.verdict, "1.5 s off (west)" in found.says) == (Verdict.OK, True)
    found = preflight.check_clock(now, files, {"south": 0.5, "west": -4000.0})
    assert (found.verdict, "west is 4,000 s behind this one" in found.says) == (Verdict.WARNING, True)
