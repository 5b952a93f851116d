"""A process of this program as the system sees it: its signals, its memory, its priority.

::

    signals       SIGINT, SIGTERM and SIGHUP from the first moment to the last
    memory        how a process keeps and returns memory
    priority      who gets a core first: the network's threads, then the trainer
"""
