"""Bytes and connections: what every service of the node builds on. Nothing here knows what a peer or a run is.

::

    endpoint        the server that every peer calls, and connections to other nodes
    broken          how gRPC says that a call or a stream is over
    lifetime        the loops of one live stream: all end when one ends
    framing         messages of the exchange stream as bytes
    packets         membership packets as bytes
    chunks          the chunks of a frame on their way out, made once for all neighbours
    checked_copy    a copy and its checksum in one pass (with checked_copy.c)
    throttle        the upload limit
    health          the gRPC health service
    meters          quantiles of round trips and of the event loop's lag
"""
