"""What an exchange costs in loss, as measured; written by ``python -m bench.convergence.frontier``, not by hand.

By arm and task: the mean difference of the test loss to the defaults' in percent, seed by seed, and the number of
seeds. The models are tiny and their step sizes large (docs/RESULTS.md), so these figures order the arms, and promise
nothing for a model of billions.
"""

from collections.abc import Mapping

LOSS_PERCENT: Mapping[str, Mapping[str, tuple[float, int]]] = {}
