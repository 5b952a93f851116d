"""``python -m bench.hostile.cost``: how much longer a mix takes with clipping, which decodes every flow twice.

One engine holds a block of random numbers and mixes updates of its neighbours, in turns with and without ``robust =
clip``. Each ratio is that of the medians, from one process and one run. Two arms are measured, since a run whose
discrepancy signal reads E (``precond``) mixes in a slower way than one without a signal (``none``, the default).
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from torch import Tensor, nn

from bench.harness import Row, parser, write_results
from deca_node.numerics.codecs.formats import KEYFRAME_CODEC
from deca_node.numerics.engine import BlockEngine, NewEdge
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.numerics.model.blocks import Block
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import PARAMETERS

ROWS = 1024
CODECS = ("fp32", "int8", "int4")
DISCREPANCIES = ("none", "precond")


def main() -> None:
    """Measure every arm with every codec, print the ratios and write ``hostile_cost.json``."""
    options = parser("Seconds of a mix with and without clipping.")
    options.add_argument("--elements", type=int, default=4 << 20, help="of the block")
    options.add_argument("--neighbours", type=int, default=3, help="open edges")
    options.add_argument("--turns", type=int, default=15, help="mixes of each kind")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.elements, arguments.turns = 1 << 18, 3
    torch.set_num_threads(arguments.threads)
    rows = [measure(discrepancy, codec, arguments) for discrepancy in DISCREPANCIES for codec in CODECS]
    for row in rows:
        clipped, plain = (f"{row[name] * 1e3:.1f} ms" for name in ("clip_seconds", "plain_seconds"))
        arm = f"discrepancy = {row['discrepancy']}, {row['codec']}"
        sentence = f"{arm}: a mix takes {clipped} with clipping, {row['ratio']:.2f} times the {plain} without"
        Console().print(sentence, highlight=False)
    Console().print(f"written to {write_results('hostile_cost', arguments, {'rows': rows})}")


def measure(discrepancy: str, codec: str, arguments: argparse.Namespace) -> Row:
    """Medians over interleaved turns. The same updates are mixed again and again, which takes as long as new ones."""
    settings = RunSettings(
        discrepancy=discrepancy, codec=codec, signal="none", robust="clip", learning_rate=1e-3, seed=arguments.seed
    )
    engine, flows = mixing(settings, arguments)
    clip = engine.clip
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * arguments.turns + 2):
        clips = bool(turn % 2)
        engine.clip = clip if clips else None
        began = time.perf_counter()
        engine.mix(flows, fold=False)
        if turn > 1:
            seconds[clips].append(time.perf_counter() - began)
    plain, clipped = (statistics.median(seconds[clips]) for clips in (False, True))
    return {
        "discrepancy": engine.hyper.discrepancy,
        "codec": codec,
        "elements": engine.elements,
        "neighbours": arguments.neighbours,
        "plain_seconds": plain,
        "clip_seconds": clipped,
        "ratio": clipped / plain,
    }


def mixing(settings: RunSettings, arguments: argparse.Namespace) -> tuple[BlockEngine, list[FlowBytes]]:
    """An engine with open edges, and an update on each."""
    model, generator = nn.Module(), torch.Generator().manual_seed(settings.seed)
    model.weight = nn.Parameter(torch.randn(ROWS, arguments.elements // ROWS, generator=generator))
    block = Block("all", ("weight",), model.weight.numel())
    engine = BlockEngine.of(model, block, settings, _zeros)
    keyframe = torch.empty(KEYFRAME_CODEC.nbytes(block.elements), dtype=torch.uint8)
    engine.keyframe(keyframe)
    peers = [f"peer{i}" for i in range(arguments.neighbours)]
    weight = 1 / (1 + len(peers))
    engine.connect([NewEdge(peer, weight, keyframe) for peer in peers], keyframe)
    ours = torch.empty(engine.layout.nbytes(PARAMETERS), dtype=torch.uint8)
    engine.encode_update(ours)
    return engine, [FlowBytes(peer, ours.clone(), ours) for peer in peers]


def _zeros(start: int, stop: int) -> Tensor:
    return torch.zeros(stop - start)


if __name__ == "__main__":
    main()
