"""Where to call first: a host name may stand for many addresses, and for others tomorrow.

A Kubernetes headless service, for one, is a DNS name with an address for every pod that there is. So names are looked
up again and again for as long as the node lives; what does not resolve is not there yet.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from deca_node.daemon.settings.address import Address

LOOKUP_SECONDS = 10.0
"""From one round of look-ups to the next."""


async def resolve(seeds: Sequence[Address]) -> tuple[str, ...]:
    """Every address of every seed as host:port with numbers for hosts, each once."""
    found = await asyncio.gather(*(_resolve(seed) for seed in seeds))
    return tuple(dict.fromkeys(address for addresses in found for address in addresses))


async def _resolve(seed: Address) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(seed.host, seed.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(Address(str(answer[4][0]), seed.port)) for answer in answers]


async def watch_seeds(seeds: Callable[[], Sequence[Address]], changed: Callable[[tuple[str, ...]], None]) -> None:
    """Call ``changed`` with the addresses at first and whenever they are others than before, for ever."""
    known: tuple[str, ...] | None = None
    while True:
        found = await resolve(seeds())
        if found != known:
            known = found
            changed(found)
        await asyncio.sleep(LOOKUP_SECONDS)
