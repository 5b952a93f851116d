"""The check of several devices: their processes start, find each other and add up."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, failed, passed
from deca_node.daemon.settings.parts import trainer_options
from deca_node.protocol import events as e
from deca_node.protocol.options import TrainerOptions
from deca_node.protocol.planning.units import bytes_text

if TYPE_CHECKING:
    from deca_node.daemon.trainer import messages

RANKS_DO = "check --devices; see docs/SEVERAL_GPUS.md"
TRIAL_SECONDS_MAX = 300.0


def check_ranks(known: Known) -> Iterator[Finding]:
    """Start the ranks without a model, and sum a vector over them. Nothing is found where one device is set."""
    node = known.settings.node
    if not node.devices:
        return
    known.say("ranks (starting one process per device)")
    found = asyncio.run(_tried(trainer_options(known.settings.run, node)))
    if isinstance(found, e.TrainerFailed):
        yield failed("ranks", found.sentence, RANKS_DO)
    elif len(found.devices) < 2:
        yield passed("ranks", f"devices = {node.devices!r} means one device here: one rank", ranks=1)
    else:
        names, much = ", ".join(found.devices), bytes_text(found.nbytes)
        says = f"{len(found.devices)} ranks on {names} sum {much} in {1000 * found.seconds:.0f} ms"
        yield passed("ranks", says, ranks=len(found.devices), devices=list(found.devices), seconds=found.seconds)


async def _tried(options: TrainerOptions) -> "messages.Tried | e.TrainerFailed":
    # Both import pydantic, which no other verb needs at its start.
    from deca_node.daemon.trainer import messages
    from deca_node.daemon.trainer.link import TrainerLink

    told: asyncio.Queue[Any] = asyncio.Queue()
    link = TrainerLink(told.put_nowait, lambda _: None)
    try:
        await link.start(messages.Trial(options), "normal")
        async with asyncio.timeout(TRIAL_SECONDS_MAX):
            found: messages.Tried | e.TrainerFailed = await told.get()
            return found
    except TimeoutError:
        return e.TrainerFailed(f"the ranks have not added up within {TRIAL_SECONDS_MAX:g} s", 11)
    finally:
        await link.close()
