"""Fetal lung study: `readings` of a scan (maps, medians, outlier frames), and the `report` (figures and tables)."""
