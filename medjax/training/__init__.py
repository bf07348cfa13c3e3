"""Training: state, step and loop for any loss."""
