"""Lines of records in which every token has its own id, so that it can be followed."""

import numpy as np
from hypothesis import strategies as st

from deca_node.numerics.data.sequences import TokenLine

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=60)
holdouts = st.sampled_from([0.01, 0.1, 0.5, 0.9])


def line_of(lengths: list[int], texts: bool | list[bool] = True) -> TokenLine:
    """Records of these lengths, all of them texts or none, or as ``texts`` says of each."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    kinds = np.array(texts if isinstance(texts, list) else [texts] * len(lengths), np.bool_)
    return TokenLine(np.arange(total, dtype=np.int32), np.ones(total, np.bool_), starts, kinds)
