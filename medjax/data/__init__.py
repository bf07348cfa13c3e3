"""Phantoms and real data: one file a source; `formats` reads and writes volumes. NumPy arrays in and out."""
