"""The memory of one activation, compared with the promised formula."""
