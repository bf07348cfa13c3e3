"""Generative priors: forward SDE → score matching → denoiser → guidance by data → sampler."""
