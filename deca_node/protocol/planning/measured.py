"""What an exchange costs in loss, as measured; written by ``python -m bench.convergence.frontier``, not by hand.

By arm and task: the mean difference of the test loss to the defaults' in percent, seed by seed, and the number of
seeds. The models are tiny and their step sizes large (docs/RESULTS.md), so these figures order the arms, and promise
nothing for a model of billions.
"""

from collections.abc import Mapping

LOSS_PERCENT: Mapping[str, Mapping[str, tuple[float, int]]] = {
    "1 bit, x every 10": {"language": (-0.5, 2)},
    "1 bit, x at the close": {"language": (-0.35, 2)},
    "none, mv, every 4, int4": {"language": (0.0, 2)},
}
