"""Trackers: services outside of the node that draw a run's curves.

::

    choice        the trackers that the settings ask for, and whether each is installed here
    tensorboard   event files for TensorBoard
    relay         numbers on their way to a tracker's own process, which never holds up the node
    child         that process: it reads numbers and hands them to one service
    services      Weights & Biases and MLflow

A tracker takes named numbers over steps (:class:`~deca_node.daemon.status.journal.Curves`). It gets the numbers of
metrics.jsonl, the run's settings and the node's name: no records, no paths, nothing of the model.
"""
