"""What it costs a node to give block versions to late ones."""
