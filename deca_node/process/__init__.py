"""A process of this program as the system sees it: what it inherits, its signals, its memory, its priority.

::

    search_path   keeps the working directory off the search path of modules
    inherited     sets right what a process inherits: descriptors, text encodings, umask, limits, signal mask
    signals       SIGINT, SIGTERM and SIGHUP from the first moment to the last
    before_torch  what the environment must say before torch is imported
    memory        how a process keeps and returns memory
    priority      who gets a core first: the network's threads, then the trainer
    between_servers  the network between servers of one party: a port to meet at, the interface towards it
    starving      notices that a process of the idle class hardly gets a core
"""
