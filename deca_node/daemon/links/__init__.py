"""Streams between nodes: greeting a peer, keeping one stream to it, and what goes over that stream.

::

    greeting           how two nodes begin a stream: who they are, and whether they are welcome
    pairing            which of several streams between two nodes both of them keep
    transport          exchange streams: dials every peer and answers every caller
    session            one live exchange stream
    outbox             the queue of one exchange stream
    turns              large pieces of work take turns on the event loop
    control            control streams: small messages to any peer, over a connection of their own
    control_session    one live control stream
    membership         runs the membership state machine on packets and the clock
    hearsay            news of the members' progress, which ride along with membership's packets
    conduct            refusals counted by reason, and peers in quarantine
"""
