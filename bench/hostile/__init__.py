"""What members that send nonsense do to the honest ones, with and without robust mixing."""
