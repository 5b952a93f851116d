"""deca-node: several parties fine-tune one language model together, peer to peer."""

__version__ = "0.1.0"
