"""No connection of this process agrees to TLS 1.2."""

import asyncio
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from deca_node.daemon.security import tls_only_13
from deca_node.daemon.security.credentials import NodeCredentials
from deca_node.daemon.security.doorman import Doorman, NameLists
from tests.daemon.conftest import Federation
from tests.daemon.security.handshakes import (
    PREFACE,
    Server,
    calling,
    refusal_of,
    tls_reason,
)


@pytest.mark.parametrize(
    ("version", "outcome"), [(ssl.TLSVersion.TLSv1_2, "tls-version"), (ssl.TLSVersion.TLSv1_3, "a session")]
)
def test_nobody_is_called_with_tls_1_2(federation: Federation, version: ssl.TLSVersion, outcome: str) -> None:
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(north.cert, north.key)
    context.set_alpn_protocols(["h2"])

    def answer_once(listener: socket.socket) -> str:
        with listener.accept()[0] as plain:
            try:
                with context.wrap_socket(plain, server_side=True) as secure:
                    return "a session" if secure.recv(3) == PREFACE[:3] else "nothing"
            except OSError:
                return "no session"

    async def call() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            answering = asyncio.ensure_future(asyncio.to_thread(answer_once, listener))
            door = Server(NodeCredentials(north), Doorman(None, NameLists(None, None), lambda *_: None))
            door.port = listener.getsockname()[1]
            async with calling(door, south) as stream:
                reason = tls_reason(await refusal_of(stream))
            assert outcome == (reason or await answering)
            assert (await answering == "a session") == (version is ssl.TLSVersion.TLSv1_3)

    asyncio.run(call())


def test_grpc_learns_of_tls_1_3_before_it_is_imported() -> None:
    """In a fresh process, whatever module of the daemon comes first, and whatever the environment says."""
    code = (
        "import deca_node.daemon.links.transport, os\n"
        "from deca_node.daemon.security import tls_only_13\n"
        "tls_only_13.check()\n"
        "assert os.environ[tls_only_13.VARIABLE] == tls_only_13.SUITE\n"
    )
    environment = {tls_only_13.VARIABLE: "ECDHE-ECDSA-AES256-GCM-SHA384", "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    late = subprocess.run(
        [sys.executable, "-c", f"import grpc\n{code}"], check=False, capture_output=True, text=True, env=environment
    )
    assert "grpc was imported before" in late.stderr
