"""Settings that PET experiments share: scanner, counts, sampler, tuning, test scans, cohorts."""

from pathlib import Path

from ml_collections import ConfigDict

from configs import pet_oblique
from medjax.defaults import PRIORS
from medjax.errors import ConfigError
from medjax.running.config_rules import POSITIVE, RATE, SEED, Rule, choice, count, distinct, elements, interval

SCANNERS = ("ring_2d", "mmr", "mct")
SAMPLED = (
    "naive", "dps", "dds", "dds_delta", "likelihood_schedule", "likelihood_schedule_cg", "dds_cg", "split_gibbs"
)  # fmt: skip
PRIOR = Rule(
    f"the name of a prior ({', '.join(PRIORS)}), a file that exists, or ''",
    lambda value: not value or value in PRIORS or Path(value).exists(),
)
GRID_RULES = {"seed": SEED, "grid.size": interval(8, 512), "grid.voxel_mm": interval(0.5, 20)}
COHORT_RULES = GRID_RULES | {  # of experiments with a multi-subject cohort
    "grid.planes": Rule("an odd number, 3 to 127", lambda value: value % 2 == 1 and 3 <= value <= 127),
    "cohort.anatomies": elements(Rule("a file or folder that exists", lambda value: Path(value).exists()), 0),
    "cohort.anatomy_mm": interval(1, 4),
    "cohort.strength": interval(0, 2),
    "cohort.trues_per_mm3": POSITIVE,
    "cohort.iterations": count(1, 1_000_000),
    "registration.factors": elements(count(1, 1000)),
    "registration.iterations": elements(count(0, 1_000_000)),
    "training.prior": PRIOR,
    "training.widths": elements(count(1, 4096), 0),
    "training.steps": count(1, 1_000_000),
    "training.batch": count(1, 100_000),
    "training.rate": RATE,
}
RULES = GRID_RULES | {
    "geometry": choice(*pet_oblique.GEOMETRIES),
    "scans_per_batch": count(1, 100_000),
    "scan.scanner": choice(*SCANNERS),
    "scan.trues_per_mm3": distinct(elements(POSITIVE)),
    "scan.background": interval(0, 0.99),
    "scan.lesions": count(1, 1000),
    "sampling.prior": PRIOR,
    "sampling.steps": count(1, 1_000_000),
    "sampling.t_max": interval(1e-3, 1),
    "sampling.t_min": interval(1e-5, 1),
    "sampling.eta": interval(0, 1),
    "sampling.gibbs_rounds": count(1, 1000),
    "sampling.gibbs_reverse_steps": count(1, 1_000_000),
    "tuning.heads": count(1, 1000),
    "tuning.values_per_hyperparameter": count(0, 1000),
    "test.heads": count(1, 1000),
    "test.realizations": count(2, 1000),
    "test.samples": count(2, 1000),
    "test.mean_of_samples": elements(choice(*SAMPLED), 0),
}


def check(config: ConfigDict) -> None:
    """Check that sampling goes from a larger diffusion time to a smaller one, and the scanner of oblique planes.

    Raises:
        ConfigError: it does not, or that scanner or its counts cannot be.
    """
    pet_oblique.check(config)
    if not config.sampling.t_min < config.sampling.t_max:
        raise ConfigError(f"sampling.t_min {config.sampling.t_min:g}; expected below t_max {config.sampling.t_max:g}")


def check_registration(config: ConfigDict) -> None:
    """Check that every level of the registration has its iterations.

    Raises:
        ConfigError: levels and iterations differ in number.
    """
    levels, iterations = len(config.registration.factors), len(config.registration.iterations)
    if levels != iterations:
        raise ConfigError(
            f"registration.factors {levels}, registration.iterations {iterations}; expected as many of both"
        )


def base(preset: str, *, mean_of_samples: tuple[str, ...]) -> ConfigDict:
    """Base config of the PET experiments, by preset; `mean_of_samples`: methods also tested by means of samples.

    Raises:
        KeyError: no such preset.
    """
    tiny, paper = preset == "tiny", preset == "paper"
    if preset not in ("tiny", "small", "paper"):
        raise KeyError(preset)
    return ConfigDict(
        {
            "seed": 0,  # random seed of noise and samples
            "geometry": "direct",  # of the planes; oblique: what `oblique` holds replaces what has the same name
            "scans_per_batch": 60 if paper else 2 if tiny else 5,  # scans reconstructed at once
            "grid": {"size": 96, "voxel_mm": 2.5},
            "scan": {
                "scanner": "mmr",
                "trues_per_mm3": (10.0,) if tiny else (2.5, 10.0, 50.0),
                "background": 0.5,  # fraction of the prompts (randoms + scatter)
                "lesions": 3,  # number of lesions in a head
            },
            "sampling": {
                "prior": "",  # score prior, by name or file; "": medjax's brain prior
                "steps": 2 if tiny else 100 if paper else 50,  # reverse diffusion steps of the published samplers
                "t_max": 0.5,  # diffusion time at which sampling starts
                "t_min": 1e-2,  # and ends
                "eta": 1.0,  # DDIM's stochasticity
                "gibbs_rounds": 2 if tiny else 6,  # steps of annealing of split Gibbs
                "gibbs_reverse_steps": 2 if tiny else 6,  # evaluations of the prior in each of its denoising steps
            },
            "tuning": {"heads": 1 if tiny else 3, "values_per_hyperparameter": 1 if tiny else 0},  # 0: all
            "test": {
                "heads": 1 if tiny else 6,  # number of held-out heads
                "realizations": 2 if tiny else 20 if paper else 2,  # noise realisations of each
                "samples": 2 if tiny else 20,  # samples that are averaged; intervals of 90 % need 19
                "mean_of_samples": mean_of_samples,  # methods tested by the mean of samples too
            },
        }
    )
