"""``python -m bench.hostile.cost``: what clipping adds to a mix, since flows are decoded twice.

One engine with a block of random numbers mixes updates of its neighbours, in turns with and without ``robust = clip``;
the ratio is that of the medians, from one process and one run.
"""

import argparse
import math
import statistics
import time

import torch
from rich.console import Console
from torch import Tensor, nn

from bench.harness import Row, parser, write_results
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.deca import Hyper
from deca_node.numerics.engine import BlockEngine, NewEdge
from deca_node.numerics.exchange.clipping import Clip
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.numerics.model.blocks import Block

ROWS = 1024
CLIP = Clip(1, 5.0, 1e-3, 3.0)


def main() -> None:
    """Measure every codec, print the ratios and write ``hostile_cost.json``."""
    options = parser("Seconds of a mix with and without clipping.")
    options.add_argument("--elements", type=int, default=4 << 20, help="of the block")
    options.add_argument("--neighbours", type=int, default=3, help="open edges")
    options.add_argument("--turns", type=int, default=15, help="mixes of each kind")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.elements, arguments.turns = 1 << 18, 3
    torch.set_num_threads(arguments.threads)
    rows = [measure(codec, arguments) for codec in ("fp32", "int8", "int4")]
    for row in rows:
        line = f"{row['codec']}: a mix takes {row['clip_seconds'] * 1e3:.1f} ms with clipping, {row['ratio']:.2f} times"
        Console().print(f"{line} the {row['plain_seconds'] * 1e3:.1f} ms without", highlight=False)
    Console().print(f"written to {write_results('hostile_cost', arguments, {'rows': rows})}")


def measure(codec: str, arguments: argparse.Namespace) -> Row:
    """Medians over interleaved turns; the updates say nothing new, which costs what others cost."""
    engine, flows = mixing(codec, arguments)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * arguments.turns + 2):
        clip = bool(turn % 2)
        engine.clip = CLIP if clip else None
        began = time.perf_counter()
        engine.mix(flows, fold=False)
        if turn > 1:
            seconds[clip].append(time.perf_counter() - began)
    plain, clipped = (statistics.median(seconds[clip]) for clip in (False, True))
    return {
        "codec": codec,
        "elements": engine.elements,
        "neighbours": arguments.neighbours,
        "plain_seconds": plain,
        "clip_seconds": clipped,
        "ratio": clipped / plain,
    }


def mixing(codec: str, arguments: argparse.Namespace) -> tuple[BlockEngine, list[FlowBytes]]:
    """An engine with open edges, and an update on each."""
    model, generator = nn.Module(), torch.Generator().manual_seed(arguments.seed)
    model.weight = nn.Parameter(torch.randn(ROWS, arguments.elements // ROWS, generator=generator))
    block = Block("all", ("weight",), model.weight.numel())
    hyper = Hyper(gamma_peak=CLIP.gamma_peak, steps_max=math.inf)
    engine = BlockEngine(model, block, _zeros, hyper=hyper, codec=CODECS[codec], gamma_c=1.0)
    keyframe = torch.empty(KEYFRAME_CODEC.nbytes(block.elements), dtype=torch.uint8)
    engine.keyframe(keyframe)
    peers = [f"peer{i}" for i in range(arguments.neighbours)]
    weight = 1 / (1 + len(peers))
    engine.connect([NewEdge(peer, weight, keyframe) for peer in peers], keyframe)
    ours = torch.empty(engine.layout.nbytes(False), dtype=torch.uint8)
    engine.encode_update(ours)
    return engine, [FlowBytes(peer, ours.clone(), ours) for peer in peers]


def _zeros(start: int, stop: int) -> Tensor:
    return torch.zeros(stop - start)


if __name__ == "__main__":
    main()
