"""The Python interface: nodes as objects, in a script or in a notebook.

::

    node         `Node`: start, wait, status, events, stop
    waiting      `tune` and `wait`: callbacks meanwhile, and an interrupt as an orderly stop
    child        a node's process that ends with the program that started it
    given        keyword arguments as settings, and as the flags of `deca-node start`
    typed        every setting's name and type, for editors and type checkers; generated
    local        names and free ports for several nodes on this machine
    records      steps, visits and evaluations, as a node writes them down
    progress     what a person sees meanwhile: a table on a terminal, lines in a file
    notebook     the same in a notebook, with curves
    curves       curves as a picture
    loading      `load`: the tuned model and its tokenizer
    client       asks a running node through the socket in its folder

Nothing here trains: a node is a process of ``deca-node start``, as on the command line. The package
:mod:`deca_node` hands on the public names without importing them before they are used.
"""
