"""One visit of one block: edges open, steps are taken and mixed, edges close.

::

    visit     the machine of one visit, from the keyframe to the last flow
    phases    the phases of a visit and the states of an edge, each with its table of transitions
    edges     the edges of one visit: what has arrived over each, what was applied, what it still owes
    closing   how edges end early: closed in good order, or lost
    loans     which frames the trainer still reads; each frame is released once
    waits     how long to wait for a neighbour; which late neighbour to leave alone for a while
    policy    what the owner of a node chose: waits, evaluations, checkpoints
    rules     what a visit is told before it begins
"""
