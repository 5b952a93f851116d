"""Whole clusters on one thread, with a fake clock and one seed for everything that is random.

::

    cluster         real nodes over a fake network
    seats           one node's seat in a cluster: its trainer and its frames
    fake_network    ordered streams with random delays
    fake_trainer    a trainer of a few numbers
    hearsay         a stand-in for gossip
    weather         faults and delays, drawn before a run
    checks/         what must hold after every event, and at the end
    drawn           the cluster of one seed
    storms          many seeded clusters in bad weather, each checked
    swarm           membership alone, with many members on a bad network
    gossip_storms   seeded swarms with troubles of every kind, each checked
    notation        events and commands as text, for transcripts
"""
