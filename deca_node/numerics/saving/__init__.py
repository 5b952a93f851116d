"""Files that hold tensors: checkpoints, starting values, deltas, exports.

::

    checkpoints   a node's state written down and restored
    choices       how a node chose at its first start which records are held out
    start_values  x0: a block's values in the run's starting model
    deltas        a frozen block as Q8(x - x0), as donors give it to late nodes
    tensor_files  safetensors files, written one tensor at a time
    export        a Hugging Face folder made of a node's newest checkpoint
    averaging     the mean of several nodes' Hugging Face folders
    trace         every step's vectors, to check a small run against the equations
"""
