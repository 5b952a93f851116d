"""The trainer's process: it ends without a word where the node has ended."""

import io
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from deca_node.daemon.trainer import child, messages
from deca_node.protocol.errors import DataError
from tests.daemon.trainer.test_link import options


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_a_node_that_ends_while_the_model_loads_leaves_no_traceback(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the node first, and the trainer's next remark finds no reader."""

    def loading(*_: object) -> None:
        raise error

    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr("deca_node.daemon.trainer.child.socket.socket", lambda fileno: theirs)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr("deca_node.process.inherited.set_right", lambda: None)
        monkeypatch.setattr(child, "_serve", loading)
        monkeypatch.setattr(sys, "argv", ["child", str(theirs.fileno()), "-1"])
        assert child.main() == 0
    assert capfd.readouterr() == ("", "")


def test_wrong_data_are_told_before_torch_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "deca_node.numerics.trainer", raising=False)
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        child._serve(io.BytesIO(messages.encode(options(tmp_path))), child.ArenaFrames(-1))  # type: ignore[arg-type]
