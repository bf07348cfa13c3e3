"""Phantoms and simulated images: brains and heads, echocardiograms, fetal diffusion MRI, shapes on scenes."""
