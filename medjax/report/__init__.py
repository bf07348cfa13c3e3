"""Reports as one self-contained HTML file, figures, galleries and tables."""
