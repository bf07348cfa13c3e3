"""Segmentation by nnU-Net: planning, preprocessing, training, sliding-window prediction, postprocessing."""
