"""``deca-node lend``: the ranks of a node that run on another server of the same party."""

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import click

from deca_node.cli.invocation import debug_option
from deca_node.daemon.settings.address import parse_address
from deca_node.protocol.errors import SettingsError

if TYPE_CHECKING:
    from deca_node.daemon.trainer.lending import Lending


@click.command(
    epilog="""\b
Examples:
  Eight GPUs here for the node at 10.0.0.1, which was started with
  --devices cuda*8 --ranks-elsewhere 8 --ranks-at 10.0.0.1:29400 --ranks-secret secret.txt:
    deca-node lend --to 10.0.0.1:29400 --devices cuda*8 --secret secret.txt
  The same model in another place:
    deca-node lend --to 10.0.0.1:29400 --devices cuda*8 --secret secret.txt --model /data/Llama-3.1-70B

It ends with 0 when the node ends, and with 12 if no node can be found. docs/SEVERAL_GPUS.md has the rest.
"""
)
@click.option("--to", required=True, metavar="HOST:PORT", help="Where the node waits for ranks: its ranks_at.")
@click.option("--devices", required=True, help="Devices to lend, one rank each: cuda*N, cuda:0,cuda:1 or cpu*N.")
@click.option("--secret", default="", metavar="FILE", help="File with the node's ranks_secret.")
@click.option("--model", default="", help="Folder of the start model here. Empty: the same path as at the node.")
@click.option("--threads", default=0, type=click.IntRange(0), help="CPU threads of all ranks here. 0: one per core.")
@click.option(
    "--wait-seconds",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long to look for a node that does not answer.",
)
@debug_option
def lend(to: str, devices: str, secret: str, model: str, threads: int, wait_seconds: float) -> None:
    """Lend this server's devices to the node of the same party on another server, until that node ends.

    The processes here are ranks of that node's trainer. They need the start model, and no records. What they exchange
    is not encrypted: use a private network.
    """
    from deca_node.daemon.settings.lent import read_secret
    from deca_node.daemon.trainer.lending import Lending, counted

    try:
        node = parse_address(to)
    except ValueError as problem:
        raise SettingsError(f"--to = {problem}") from None
    shown = read_secret(secret, node.host)
    asyncio.run(_life(Lending(node.host, node.port, counted(devices), shown, model, threads, wait_seconds)))


async def _life(lending: "Lending") -> None:
    from deca_node.daemon.trainer.lending import lend as lend_all

    work = asyncio.ensure_future(lend_all(lending, lambda sentence: click.echo(sentence, err=True)))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
