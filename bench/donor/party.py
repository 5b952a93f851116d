"""``python -m bench.donor.party DIRECTORY MBIT``: one donor in its own process, until its input ends.

It prints its port at once, and at the end the delays of its event loop in milliseconds. A heartbeat is due every few
milliseconds, and any work that blocks the loop delays it.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer.donor import Donor
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire.throttle import Throttle
from deca_node.storage.manifest import newest_manifest

BEAT_SECONDS = 0.005


async def main() -> None:
    """Serve until the parent closes the pipe."""
    directory, mbit = Path(sys.argv[1]), float(sys.argv[2])
    manifest = newest_manifest(directory)
    assert manifest is not None, f"{directory} holds no checkpoint"
    limit = Throttle(mbit * 1e6 / 8)
    donor = Donor(directory, lambda: 0, lambda: manifest.agreement, "", throttles=[limit])
    endpoint = Endpoint(Address("127.0.0.1", 0))
    endpoint.add(*donor.handlers())
    await endpoint.start()
    print(endpoint.address.port, flush=True)
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    late = await heartbeats(ended)
    await endpoint.stop()
    late.sort()
    quantiles = {f"late_ms_p{p}": round(1e3 * late[int(p / 100 * (len(late) - 1))], 2) for p in (50, 99, 100)}
    print(json.dumps(quantiles | {"cpu_seconds": round(time.process_time(), 2), **donor.served}))


async def heartbeats(ended: "asyncio.Future[str]") -> list[float]:
    """Seconds by which each heartbeat was late."""
    late = []
    loop = asyncio.get_running_loop()
    while not ended.done():
        due = loop.time() + BEAT_SECONDS
        await asyncio.sleep(BEAT_SECONDS)
        late.append(max(0.0, loop.time() - due))
    return late


if __name__ == "__main__":
    asyncio.run(main())
