"""Settings of PET experiments with oblique planes: what `--config.geometry=oblique` puts in place of others' values."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config import flatten
from medjax.running.config_rules import POSITIVE, RATE, Rule, choice, count, interval, subset

GEOMETRIES = ("direct", "oblique")
PERPENDICULAR = tuple(  # samplers that slice a volume along all three axes in turn
    f"{name}_perpendicular"
    for name in ("dds", "dds_delta", "likelihood_schedule", "likelihood_schedule_cg", "dds_cg", "split_gibbs")
)
OWN_RULES = {
    "scan.scanner": choice("ring_16", "mmr"),
    "scan.rings": count(2, 64),
    "scan.ring_spacing_mm": interval(1, 40),
    "scan.span": Rule("an odd number, 1 to 63", lambda value: value % 2 == 1 and 1 <= value <= 63),
    "scan.max_ring_difference": count(0, 63),
    "scan.full_trues_per_mm3": POSITIVE,
    "fine_tuning.phantoms": count(1, 10_000),
    "fine_tuning.steps": count(0, 1_000_000),
    "fine_tuning.batch": count(1, 100_000),
    "fine_tuning.rate": RATE,
}


def rules(
    shared: Mapping[str, Rule], settings: ConfigDict, methods: tuple[str, ...], more: Mapping[str, Rule] | None = None
) -> dict[str, Rule]:
    """Rules of the `settings` under their keys `oblique.KEY`.

    Args:
        shared: rules of the experiment, which hold of the same keys.
        settings: settings of oblique planes.
        methods: methods of the experiment; samplers come with perpendicular slices too.
        more: rules of keys that the experiment does not have, `oblique.KEY`.
    """
    known = {f"oblique.{key}": rule for key, rule in (dict(shared) | OWN_RULES).items()}
    known |= {"oblique.methods": subset(*methods, *PERPENDICULAR), **(more or {})}
    return {key: known[key] for key in (f"oblique.{one}" for one in flatten(settings))}


def check(config: ConfigDict) -> None:
    """Check that ring differences are those of the rings, and that scans have fewer counts than the full-count one.

    Raises:
        ConfigError: they are not.
    """
    scan = config.oblique.scan
    if scan.max_ring_difference >= scan.rings:
        raise ConfigError(
            f"oblique.scan.max_ring_difference {scan.max_ring_difference}; expected below {scan.rings}, the rings"
        )
    if max(scan.trues_per_mm3) > scan.full_trues_per_mm3:
        raise ConfigError(
            f"oblique.scan.trues_per_mm3 {max(scan.trues_per_mm3):g}; expected no more than those of the full-count "
            f"scan, {scan.full_trues_per_mm3:g}"
        )


def oblique(preset: str, methods: tuple[str, ...]) -> ConfigDict:
    """Scanner, grid, prior and numbers of a study with oblique planes, by preset.

    `small`: 16 rings 7.5 mm apart, span 1, 64 × 64 × 31 voxels of 3.75 mm. `paper`: the mMR's size.
    """
    tiny, paper = preset == "tiny", preset == "paper"
    return ConfigDict(
        {
            "methods": methods,
            "scans_per_batch": 1 if paper else 2,
            "grid": {
                "size": 24 if tiny else 128 if paper else 64,
                "voxel_mm": 10.0 if tiny else 2.08625 if paper else 3.75,
            },
            "scan": {
                "scanner": "mmr" if paper else "ring_16",
                "rings": 4 if tiny else 64 if paper else 16,
                "ring_spacing_mm": 20.0 if tiny else 4.0625 if paper else 7.5,  # two slices
                "span": 11 if paper else 1,
                "max_ring_difference": 1 if tiny else 60 if paper else 15,
                "full_trues_per_mm3": 250.0,
                "trues_per_mm3": (2.5,),  # to which the full-count scan is thinned: 1 %
            },
            "fine_tuning": {  # of the prior, on phantoms of these voxels
                "phantoms": 2 if tiny else 40,
                "steps": 0 if paper else 1 if tiny else 500,  # 0: the prior as it is
                "batch": 2 if tiny else 8,  # slices in a step
                "rate": 5e-4,  # Adam's peak learning rate
            },
            "sampling": {"steps": 2 if tiny else 100 if paper else 50},
            "tuning": {"heads": 1},
            "test": {
                "heads": 6 if paper else 1,
                "realizations": 2 if tiny else 20,
                "samples": 2 if tiny else 25,
                "mean_of_samples": (),
            },
        }
    )
