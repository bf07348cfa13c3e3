"""Generative priors: forward SDE → score matching → reverse sampler → conditioning on data."""
