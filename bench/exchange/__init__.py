"""The time in which two nodes send each other a block, compared with the alternatives."""
