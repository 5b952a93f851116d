"""The harm of members that send nonsense, with and without robust mixing."""
