"""Training of networks: losses, augmentation, batches, training state, populations, checkpoints."""
