"""One module per contestant. Each runs in its own interpreter, with the packages of its own environment."""
