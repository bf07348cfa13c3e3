"""Networks, data and training (`members`) and `figures` of `label_flips`."""
