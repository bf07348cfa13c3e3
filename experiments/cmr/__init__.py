"""Parts of `cmr_precision`: scans, networks, samples of biomarkers, statistics, tables and figures."""
