"""Simulated subjects: brains and heads, echocardiograms, fetuses, scenes."""
