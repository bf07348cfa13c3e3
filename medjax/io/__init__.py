"""Files that the field exchanges: NIfTI, Interfile, list mode, counts, b-values, pictures, nnU-Net raw data."""
