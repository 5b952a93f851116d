"""Whole clusters on one thread, with a fake clock and one seed for everything that is random.

::

    cluster         real nodes, performed over a fake network
    seats           one node's place in a cluster: its trainer and its frames
    fake_network    ordered streams with drawn delays
    fake_trainer    a trainer of a few numbers
    hearsay         a stand-in for gossip
    weather         faults and delays, drawn beforehand
    audit           what must hold between the trainers of a cluster
    storms          many seeded clusters in bad weather, each checked
    swarm           membership alone, with many members on a bad network
    notation        events and commands as text, for transcripts
"""
