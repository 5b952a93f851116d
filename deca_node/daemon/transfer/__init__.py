"""Block versions and the start model, from nodes that have them to nodes that lack them.

::

    donor           answers the requests of late nodes
    stock           the files that this node has to give, checked before they are given
    fetcher         fetches all that is missing: asks donors, plans, downloads, tries again
    offers          what donors say they have, which of that is believed, and the plan
    download        one attempt to download a list of files from several donors at once
    pieces          how a file is cut into pieces, and which donor is asked for which
    partial_file    a file on its way in, on the disk
    adoption        takes over the run's settings and start model when a node joins
"""
