"""Noisy labels: simulated errors; audit by training dynamics (probe → scores → thresholds); refurbishment."""
