"""The reference: plain sockets, ``sendall`` on a thread per neighbour and ``recv_into`` beside it.

Congestion control is pinned, because systems differ in their defaults and loopback shows the difference.
"""

import contextlib
import socket
import threading
import time

import numpy as np

from bench.exchange import content
from bench.exchange.party import Job, main

CONGESTION = "cubic"
CONNECT_SECONDS_MAX = 30.0


class RawTcp:
    """One connection per neighbour, used in both directions at once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._own = content.read(job.contents[job.party])
        self._arrived = {peer: np.empty_like(self._own) for peer in job.neighbours}
        self._connections = connect_all(job)
        self.facts = {"congestion control": congestion(next(iter(self._connections.values())))}

    def prepare(self) -> None:
        """Do nothing, since the buffers are reused, as in a program that exchanges repeatedly."""

    def exchange(self) -> None:
        """Exchange with all neighbours at once."""
        own = self._own.data.cast("B")
        threads = [threading.Thread(target=each.sendall, args=(own,)) for each in self._connections.values()]
        threads += [threading.Thread(target=self._receive, args=(peer,)) for peer in self._job.neighbours[1:]]
        for thread in threads:
            thread.start()
        self._receive(self._job.neighbours[0])
        for thread in threads:
            thread.join()

    def _receive(self, peer: int) -> None:
        view = self._arrived[peer].data.cast("B")
        while view:
            count = self._connections[peer].recv_into(view)
            assert count, "the peer closed its connection"
            view = view[count:]

    def check(self) -> float:
        """The error, which is 0."""
        return max(content.error([got], [self._job.contents[peer]]) for peer, got in self._arrived.items())

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()


def connect_all(job: Job) -> dict[int, socket.socket]:
    """Connect to all neighbours. Of two neighbours the one with the larger number dials, and sends its number."""
    connections = {}
    with socket.socket() as listener:
        pin(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(job.peers[job.party])
        listener.listen()
        for peer in job.neighbours:
            if peer < job.party:
                connections[peer] = dial(job.peers[peer])
                connections[peer].sendall(bytes([job.party]))
        while len(connections) < len(job.neighbours):
            connection, _ = listener.accept()
            connections[connection.recv(1)[0]] = connection
    return connections


def dial(address: tuple[str, int]) -> socket.socket:
    """Connect as soon as the other end listens."""
    deadline = time.monotonic() + CONNECT_SECONDS_MAX
    while True:
        connection = socket.socket()
        pin(connection)
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return connection


def pin(each: socket.socket) -> None:
    """Choose the congestion control, if the system allows it."""
    with contextlib.suppress(AttributeError, OSError):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION.encode())


def congestion(each: socket.socket) -> str:
    """The congestion control of a connection."""
    with contextlib.suppress(AttributeError, OSError):
        return each.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    return "unknown"


if __name__ == "__main__":
    main(RawTcp)
