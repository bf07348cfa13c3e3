"""One module an experiment, same file name: `get_config(preset)` is its ConfigDict for `tiny`, `small` or `paper`."""
