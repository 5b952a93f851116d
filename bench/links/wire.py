"""Machines on ordinary lines, on one machine: network namespaces, and a wire between them that is slow and long.

Every namespace has a TUN device whose other end is a file in this process. A packet from a machine waits until its line
is free, takes its time to be sent, travels, and is written to the device of the machine with its address. So TCP runs
for real, over a round trip and a rate of our choice. The kernel needs no traffic shapers, which small kernels lack.
Packets that do not fit the queue are lost, as at any router.
"""

import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

TUN = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

MTU_BYTES = 18_000
"""Larger than on any line, like the joined packets of a network card: 700 a second per 100 Mbit/s, so that Python takes
little of the processor from the measurement."""

QUEUE_SECONDS = 0.1
"""The longest queue of a line. Ordinary routers allow as much or more."""

HEADERS_BYTES = 40

CONGESTION = "cubic"
"""The default of Linux. BBR, the default of some machines, is silent for 0.2 s every ten seconds."""


class NotPermittedError(Exception):
    """This machine does not allow networks to be made. The message names the missing part."""


@dataclass
class Line:
    """One machine's line, and the time until which each way is busy."""

    namespace: str
    address: str
    device: int
    up_until: float = 0.0
    down_until: float = 0.0


@dataclass
class Wire:
    """A star of equal lines. The end of the ``with`` block removes everything that its start made. ``up_share`` is the
    rate of sending as a share of that of receiving."""

    machines: int
    bits_per_second: float
    seconds_one_way: float
    up_share: float = 1.0
    lines: list[Line] = field(default_factory=list)
    lost: int = 0
    _namespaces: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Wire":
        check_permitted()
        try:
            self.lines = [self._line(number) for number in range(self.machines)]
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
        self._remove()

    def _line(self, number: int) -> Line:
        namespace, device = f"deca-links-{os.getpid()}-{number}", f"deca{number}-{os.getpid()}"
        ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        file = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", device[:15].encode(), _IFF_TUN | _IFF_NO_PI))
        line = Line(namespace, f"10.77.0.{number + 1}", file)
        ip("link", "set", device[:15], "netns", namespace)
        inside = ("-n", namespace)
        ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "address", "add", f"{line.address}/24", "dev", device[:15])
        ip(*inside, "link", "set", device[:15], "mtu", str(MTU_BYTES), "up")
        # The setting of the machine cannot be changed for a namespace everywhere, but that of a route can.
        ip(*inside, "route", "replace", "10.77.0.0/24", "dev", device[:15], "congctl", CONGESTION)
        return line

    def _remove(self) -> None:
        for line in self.lines:
            os.close(line.device)
        for namespace in self._namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def _carry(self) -> None:
        by_device = {line.device: line for line in self.lines}
        by_address = {bytes(map(int, line.address.split("."))): line for line in self.lines}
        poll = select.poll()
        for device in by_device:
            poll.register(device, select.POLLIN)
        travelling: list[tuple[float, int, Line, bytes]] = []
        count = 0
        while not self._ended.is_set():
            now = time.monotonic()
            wait = min(travelling[0][0] - now, 0.1) if travelling else 0.1
            for device, _ in poll.poll(max(0.0, 1000 * wait)):
                packet, now = os.read(device, 65536), time.monotonic()
                to = by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
                if to is None or not self._passes(by_device[device], to, packet):
                    continue
                arrival = self._arrival(by_device[device], to, len(packet), now)
                if arrival:
                    count += 1
                    heapq.heappush(travelling, (arrival, count, to, packet))
            while travelling and travelling[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(travelling)
                os.write(to.device, packet)

    def _passes(self, source: Line, to: Line, packet: bytes) -> bool:
        """Whether what stands between the machines lets this packet through."""
        return True

    def _arrival(self, source: Line, to: Line, nbytes: int, now: float) -> float | None:
        """The time at which a packet that is sent now arrives, or None if it is lost."""
        seconds = 8 * nbytes / self.bits_per_second
        sent = max(now, source.up_until) + seconds / self.up_share
        received = max(sent + self.seconds_one_way, to.down_until + seconds)
        if sent > now + QUEUE_SECONDS or received > sent + self.seconds_one_way + QUEUE_SECONDS:
            self.lost += 1
            return None
        source.up_until, to.down_until = sent, received
        return received


def check_permitted() -> None:
    """Raise NotPermittedError if namespaces or TUN devices cannot be made."""
    if shutil.which("ip") is None:
        raise NotPermittedError("there is no command ip (iproute2)")
    if os.geteuid() != 0:
        raise NotPermittedError("network namespaces need root")
    if not TUN.exists():
        raise NotPermittedError(f"there is no {TUN}")
    try:
        ip("netns", "add", f"deca-links-{os.getpid()}-trial")
        ip("netns", "delete", f"deca-links-{os.getpid()}-trial")
    except subprocess.CalledProcessError as error:
        raise NotPermittedError(f"no namespace could be made: {error.stderr.strip()}") from error


def ip(*words: str) -> None:
    """Run ``ip``. Raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
