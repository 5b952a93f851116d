"""Looks up the host names of seeds, again and again.

A host name may have many addresses, and others later: a Kubernetes headless service has one for each of its pods. So
names are looked up for as long as the node lives. A name that does not resolve gives no addresses yet.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from deca_node.daemon.settings.address import Address

LOOKUP_SECONDS = 10.0
"""Time between two rounds of look-ups."""


async def resolve(seeds: Sequence[Address]) -> tuple[str, ...]:
    """Every address of every seed as numeric host:port, without duplicates."""
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
    """Call ``changed`` with the addresses at the start and after every change, for ever."""
    known: tuple[str, ...] | None = None
    while True:
        found = await resolve(seeds())
        if found != known:
            known = found
            changed(found)
        await asyncio.sleep(LOOKUP_SECONDS)
