"""Defaults of `medjax pet`, which its help shows without importing what its tools need."""

SCANNER, METHOD = "mmr", "osem"
PSF_MM = 4.5  # resolution, FWHM
MAX_RING_DIFFERENCE = 5  # of list-mode events
SAMPLING_STEPS = 50

# Of simulations
BACKGROUND = 0.5  # fraction of the prompts
SIZE = 128  # voxels along x and y

# Of training a prior
SLICE_SIZE, SLICE_VOXEL_MM = 96, 2.5
STEPS, BATCH, RATE = 10_000, 8, 2e-3
