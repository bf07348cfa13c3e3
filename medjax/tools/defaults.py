"""Defaults of commands and of the functions behind them; this loads nothing, so that help answers at once."""

# labels audit
DETECTOR, THRESHOLD, SIZE, AUDIT_EPOCHS = "dice_mean", "otsu", 64, 24

# segment train: nnU-Net's own
NETWORK, BASE_WIDTH, MEMORY_GB = "plain_unet", 32, 8.0
EPOCHS, ITERATIONS, RATE = 1000, 250, 0.01

# ivim fit
METHOD, NOISE, SIGMA, CONVENTION, AVERAGE = "full", "gaussian", "residual", "absolute", "none"
PERFUSION_OVER = 200.0  # s/mm²
