"""Running experiments: config, work directory, stages, sweeps, metrics and report."""
