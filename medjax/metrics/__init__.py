"""Numbers that say how good an image, a segmentation or a prediction is. Pure functions; each module is one kind."""
