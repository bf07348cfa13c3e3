"""What the study of wrong labels in echo segmentation is made of: its cells and their populations, and its tables."""
