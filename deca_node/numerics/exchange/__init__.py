"""What happens between neighbours, in tensors: updates are encoded, checked, clipped and mixed in.

::

    flows     public copies and edges: keyframes and differences out, flows in
    frames    the parts of an update frame, and where each lies in it
    mix       what the flows of one mix do to the block
    signals   moment-discrepancy signals
    norms     whether a neighbour's frame has a plausible size
    clipping  how much of a neighbour's difference counts
    slices    a block's vector in pieces that fit the cache
    squares   sums of squares, for figures
"""
