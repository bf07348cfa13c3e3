"""What `brain_mri_bias` is made of: its subjects, networks, group metrics, regions and figures."""
