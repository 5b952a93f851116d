"""One trainer on several devices: ranks, which share every batch and sum their gradients.

Rank 0 leads. It alone has data, moments, neighbours and files; the others hold the model and compute gradients.

::

    group      the processes, joined by torch.distributed: words from rank 0, broadcast tensors, sums
    orders     what rank 0 asks of the others, as JSON and one vector of numbers
    shares     a rank's part of a batch, and what a rank computes of it
    leader     rank 0's part: hand out work, renew what changed, sum up
    follower   the others' part: obey until rank 0 ends
    shards     a model sharded over the ranks by FSDP2, and its parameters moved whole, one at a time
    sharded    rank 0's part and the others' with such a model
    trial      whether ranks can add up, tried before a run
"""
