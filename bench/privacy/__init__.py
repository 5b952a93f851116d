"""The cost of private gradients in loss."""
