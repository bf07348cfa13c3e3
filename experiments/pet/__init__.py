"""Shared parts of the PET experiments: scans, reconstruction methods, their comparison and its summary.

scans        a scanner and its noisy scans, measures of images    subjects   heads that no prior has seen
methods      a reconstruction over many scans; those of conventional, samplers and supervised
comparison   tune on validation scans, reconstruct test scans   summary    its metrics, tables and figures
"""
