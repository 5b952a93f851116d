"""What private gradients cost in loss."""
