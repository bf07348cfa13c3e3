"""Defaults that a command shares with the functions behind it; this loads nothing, so that help answers at once."""

# medjax labels audit
AUDIT_SCORE, AUDIT_THRESHOLD = "dice_mean", "otsu"
AUDIT_SIZE, AUDIT_EPOCHS = 64, 24  # voxels along each axis

# medjax segment train: nnU-Net's own
SEGMENT_NETWORK, SEGMENT_WIDTH, SEGMENT_MEMORY_GB = "plain_unet", 32, 8.0
SEGMENT_CONFIGURATION = "3d_fullres"
SEGMENT_EPOCHS, SEGMENT_ITERATIONS, SEGMENT_RATE = 1000, 250, 0.01

# medjax segment evaluate
SEGMENT_TOLERANCE_MM = 2.0  # of the normalized surface Dice

# medjax ivim fit
IVIM_METHOD, IVIM_NOISE, IVIM_SIGMA, IVIM_CONVENTION, IVIM_AVERAGE = "full", "gaussian", "residual", "absolute", "none"
IVIM_BOUNDS = "default"  # see ivim.bounds
IVIM_THRESHOLD = 200.0  # s/mm², from which on perfusion no longer contributes to the signal

# medjax pet reconstruct
PET_SCANNER, PET_METHOD = "mmr", "osem"
PET_PSF_MM = 4.5  # resolution, FWHM
PET_ADDITIVE_CONVENTION, PET_MULTIPLICATIVE_CONVENTION = "counts", "factors"
PET_MAX_RING_DIFFERENCE = 5  # largest ring difference of list-mode events
PET_SAMPLING_STEPS = 50  # of the published samplers
PET_SIZE = 128  # voxels along x and y

# medjax pet simulate
PET_BACKGROUND = 0.5  # fraction of the prompts that is randoms and scatter

# medjax pet train-prior
PRIORS = ("noise_free", "osem", "without_lesions")  # names of those that come with medjax, the default one first
PRIOR_SIZE, PRIOR_VOXEL_MM = 96, 2.5  # voxels along each side of a training slice
PRIOR_STEPS, PRIOR_BATCH, PRIOR_RATE = 10_000, 8, 1e-3

# medjax register
REGISTER_KIND, REGISTER_ITERATIONS = "deformable", "100,60,50"

# medjax labels simulate, ivim simulate, segment simulate: small data sets
SIMULATED_LABELS, SIMULATED_WRONG, SIMULATED_ERROR = 64, 0.15, "random"  # images, fraction of wrong masks
SIMULATED_SIZE = 48  # voxels along x and y
SIMULATED_AGE, SIMULATED_SNR = 28.0, 20.0  # weeks
SIMULATED_CASES, SIMULATED_TEST_CASES = 8, 2
