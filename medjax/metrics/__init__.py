"""Metrics of images, segmentations, predictions and agreement; pure functions."""
