"""Who takes part: SWIM with Lifeguard as a state machine. Packets, failures and time go in; packets and reports come
out.

::

    membership   the machine: what a member does about every event
    changes      a table of what happens to a member when newer facts about it win
    view         the state that all parts share: own facts, other members, rumours, commands to give out
    facts        what is known of one member, and which of two facts is the newer
    messages     the packets between members, and the events and commands of the machine
    probing      is a member there? pings, and pings by way of others
    suspicion    how long a silent member is suspected before it is given up
    naming       which process may use a name when two claim it
    contacts     calls beside the probes: to seeds, to the suspected, to the dead
    rumours      news that ride on other packets
    alarms       the times at which a member acts by itself
    profiles     the numbers of a local network, a wide one, and one machine
"""
