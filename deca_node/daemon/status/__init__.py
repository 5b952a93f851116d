"""What a node knows of itself. Everything here only watches events and commands; nothing decides.

::

    facts           the status as plain values, and their JSON
    steps           one finished step as one value
    book            collects the status from events, commands and the other parts of the daemon
    lives           the starts of a node in one folder, and bytes over all of them
    history         curves, the map of blocks and rounds, and the graph, for the page
    warnings        the warnings that hold now
    last_refusals   the last refusal of each peer
    metrics         every metric, as a table over the status
    journal         metrics.jsonl, and log lines about peers and held-out losses
    progress        log lines about how far the run is
    log_file        the log lines in the node's folder
    append_file     files that grow by whole records, and survive trouble with the disk
"""
