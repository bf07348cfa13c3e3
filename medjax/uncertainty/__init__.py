"""Uncertainty: predictive samples, cardiac biomarkers with intervals, their precision and calibration."""
