"""Reports a reader can keep: one self-contained html file (`medjax.report.html`)."""
