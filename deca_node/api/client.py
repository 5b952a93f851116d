"""The client of a running node: HTTP over the socket in the node's folder."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from deca_node.daemon.status.facts import SOCKET, Verb
from deca_node.daemon.web import unix_socket
from deca_node.protocol.errors import DecaError, NoAnswerError

Fact = TypeVar("Fact")

ANSWER_SECONDS = 10.0
QUIET_SECONDS = 60.0
"""The longest silence on a stream of lines. A node that has nothing to say sends an empty line more often than this."""
ANOTHER_VERSION = "the node runs another version of deca-node, and its answer cannot be read; use that version"


class NodeClient:
    """The node that runs in ``directory``. Every method raises NoAnswerError where no node answers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, path: str) -> bytes:
        """The node's answer at this path."""
        with self._call("GET", path) as response:
            return response.read()

    def ask(self, verb: Verb) -> str:
        """Pass a request on; returns the node's sentence. Raises DecaError with that sentence if the node refuses."""
        with self._call("POST", f"/v1/{verb}") as response:
            sentence = str(json.loads(response.read())["sentence"])
            if response.status != http.HTTPStatus.OK:
                raise DecaError(sentence)
            return sentence

    def lines(self, path: str) -> Iterator[str]:
        """The node's answer line by line, until the node ends. Empty lines are left out."""
        with self._call("GET", path, QUIET_SECONDS) as response:
            while line := response.readline():
                if text := line.decode().rstrip("\n"):
                    yield text

    @contextlib.contextmanager
    def _call(self, method: str, path: str, seconds: float = ANSWER_SECONDS) -> Iterator[http.client.HTTPResponse]:
        if not self._directory.is_dir():
            raise NoAnswerError(f"there is no folder {self._directory}")
        connection = _Connection(self._directory / SOCKET, seconds)
        try:
            connection.request(method, path)
            with connection.getresponse() as response:
                yield response
        except TimeoutError:
            raise NoAnswerError(f"the node in {self._directory} does not answer within {seconds:g} s") from None
        except PermissionError:
            raise NoAnswerError(
                f"the node in {self._directory} belongs to another user, and answers that user only"
            ) from None
        except (OSError, http.client.HTTPException):
            raise NoAnswerError(self._no_node()) from None
        finally:
            connection.close()

    def _no_node(self) -> str:
        final = self._directory / "final"
        if final.is_dir():
            return f"no node runs in {self._directory}: its run is complete, and the tuned model is in {final}"
        return f"no node runs in {self._directory}; start it with deca-node start --dir {self._directory}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("node", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock: socket.socket = unix_socket.connect(self._path, self.timeout or ANSWER_SECONDS)


def read(kind: type[Fact], text: bytes) -> Fact:
    """Read a fact from the node's JSON. Raises NoAnswerError where the node has another version."""
    import pydantic

    try:
        return pydantic.TypeAdapter(kind).validate_json(text)
    except pydantic.ValidationError:
        raise NoAnswerError(ANOTHER_VERSION) from None
