"""File formats: NIfTI, Interfile, list mode, counts, b-values, PNG images, nnU-Net raw data sets, CSV tables."""
