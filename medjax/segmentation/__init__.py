"""Segmentation, and labels that cannot be trusted."""
