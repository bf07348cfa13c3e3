"""What the PET experiments share.

scans        a scanner and its noisy scans, judging             subjects   heads that no prior has seen
methods      a reconstruction over many scans; which there are, in conventional, samplers and learned
comparison   tune on validation scans, reconstruct test scans   summary    its metrics, tables and pictures
"""
