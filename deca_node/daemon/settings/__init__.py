"""The settings of this machine, and the names and addresses that follow from them.

::

    node_settings   node.toml: every setting with its default and help
    before_start    blanks that are filled in, and the checks of paths and of plaintext
    sources         where a value comes from: flag, environment variable, file or default
    parts           the trainer's options, the node's policy and the planner's machine, made from the settings
    after_run       how long a node stays when its run is complete
    lent            ranks on other servers of this party: their secret, and the address to meet at
    texts           settings that are lists, addresses or paths
    address         host:port as text, and whether a host is this machine
    peers_file      the peers file: its lines, and which line is this node's own
    own_address     this node's name, its addresses, and the peers to call first
    environment     variables that could redirect peers' traffic, and that do not
    lookup          host names of those peers, looked up again and again
"""
