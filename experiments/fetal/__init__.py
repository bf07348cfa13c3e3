"""What the study of fetal lungs is made of: its networks, what is read of a scan, its figures and tables."""
