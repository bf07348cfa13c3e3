"""Config of a new experiment: numbers, strings, booleans and tuples, and the rules that they keep."""

from ml_collections import ConfigDict

from medjax.running.config_rules import SEED, distinct, elements, interval

PRESETS = ("tiny", "small", "paper")
RULES = {
    "seed": SEED,
    "size": interval(8, 512),
    "levels": distinct(elements(interval(0.1, 1e6))),
    "iterations": interval(1, 1000),
}


def get_config(preset: str) -> ConfigDict:
    """Config of a preset: `tiny` for tests, `small` for two cores, `paper` at the published scale."""
    size, levels, iterations = {
        "tiny": (16, (10.0, 100.0), 5),
        "small": (64, (3.0, 10.0, 30.0, 100.0), 60),
        "paper": (128, (1.0, 3.0, 10.0, 30.0, 100.0, 300.0), 200),
    }[preset]
    return ConfigDict(
        {
            "seed": 0,  # random seed of the noise
            "size": size,  # voxels of 4 mm along x and y
            "levels": levels,  # mean counts of a line of response
            "iterations": iterations,
        }
    )
