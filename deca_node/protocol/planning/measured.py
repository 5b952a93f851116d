"""What an exchange costs in loss, as measured; written by ``python -m bench.convergence.frontier``, not by hand.

By arm and task: the mean difference of the test loss to the defaults' in percent, seed by seed, and the number of
seeds. The models are tiny and their step sizes large (docs/RESULTS.md), so these figures order the arms, and promise
nothing for a model of billions.
"""

from collections.abc import Mapping

LOSS_PERCENT: Mapping[str, Mapping[str, tuple[float, int]]] = {
    "turns, 1 bit, x at the close": {"language": (-0.04, 2), "sources": (17.95, 2), "heads": (31.15, 2)},
    "turns, 1 bit, x at the close, flush 0": {"language": (0.32, 5), "sources": (17.81, 2), "heads": (26.53, 2)},
    "NoLoCo, every 160": {"language": (2.45, 5), "sources": (46.32, 2), "heads": (31.74, 2)},
    "lora, every 10": {"language": (2.92, 4), "sources": (63.49, 2), "heads": (40.91, 2)},
    "NoLoCo, every 80": {"language": (0.31, 2), "sources": (36.92, 2), "heads": (19.51, 1)},
    "lora": {"language": (0.36, 2), "sources": (41.99, 2), "heads": (9.31, 2)},
    "the default by tokens": {"language": (0.18, 2)},
    "turns, 1 bit every 4, R = 40, flush 0": {"language": (0.76, 5)},
    "turns, 1 bit, x every 10": {"language": (0.05, 2), "sources": (15.36, 2), "heads": (28.29, 2)},
    "turns, 1 bit every 3, flush 0": {"language": (1.7, 2), "sources": (29.67, 2), "heads": (52.76, 2)},
    "1 bit, x every step": {"language": (-0.95, 2), "sources": (0.34, 2), "heads": (2.4, 2)},
    "1 bit, x every 10": {"language": (-0.52, 2), "sources": (7.2, 2), "heads": (18.34, 2)},
    "none, mv, every 4, int4": {"language": (0.0, 2), "sources": (0.01, 2), "heads": (0.26, 2)},
    "1 bit, x at the close": {"language": (-0.32, 2), "sources": (10.59, 2), "heads": (14.17, 2)},
    "pairs, 1 bit, x every 10": {"language": (2.65, 2), "sources": (31.64, 2), "heads": (52.84, 2)},
    "1 bit, x every 4": {"language": (-0.73, 2), "sources": (6.32, 2), "heads": (11.62, 2)},
    "no moments, x every 10": {"language": (4.73, 2), "sources": (29.16, 2), "heads": (28.46, 2)},
    "2 bits, x at the close": {"language": (-0.41, 2), "sources": (9.46, 2), "heads": (12.43, 2)},
    "1 bit, v once, x every 10": {"language": (-0.5, 2), "sources": (8.42, 2), "heads": (14.31, 2)},
    "pairs, 1 bit, x at the close": {"language": (2.61, 2), "sources": (33.16, 2), "heads": (52.98, 2)},
    "degree 2, 1 bit, x every 10": {"language": (-0.66, 1)},
}
