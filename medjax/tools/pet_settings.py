"""Settings of a PET reconstruction: its methods, their defaults, and which options go with which method."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from medjax import defaults
from medjax.errors import ConfigError, pluralize
from medjax.running.config import did_you_mean
from medjax.running.part_identity import as_part
from medjax.tools.checks import MAX_FWHM_MM, MAX_SAMPLES, MAX_STEPS, check_range, check_seed
from medjax.tools.pet_sample import CG_ITERATION, SAMPLERS, SamplingOptions

DEFAULTS = {  # method → (iterations, subsets)
    "osem": (3, 21), "mlem": (30, 1), "map-em": (10, 7), "svrg": (20, 21), "bsrem": (30, 21), "kernel-em": (10, 7),
}  # fmt: skip
DEFAULTS |= {name: (sampler.iterations, 1) for name, sampler in SAMPLERS.items()}
NAMES = {  # of methods in titles; the options are the keys
    "osem": "OSEM", "mlem": "MLEM", "map-em": "MAP-EM", "svrg": "SVRG", "bsrem": "BSREM", "kernel-em": "Kernel EM",
    "split-gibbs": "split Gibbs", "dds-cg": "DDS, solved step",
    "dds": "DDS", "likelihood-schedule": "likelihood schedule",
}  # fmt: skip
MIN_COUNTS = 100  # counts in a plane of a subset: with fewer, ordered subsets without a penalty are too noisy
COUNTS_A_SUBSET = 500  # and from which on OSEM's image keeps the number of counts to 5 %
MR_GUIDED = ("map-em", "svrg", "bsrem", "kernel-em")  # methods that take an MR image, beside samplers
PENALIZED = ("map-em", "svrg", "bsrem")  # methods of a penalized likelihood
PENALTIES = ("quadratic", "relative-difference")  # names of penalties
MAX_SUBSETS, MAX_BETA, MAX_SAMPLING_STEPS = 10**4, 1e12, 10**4
BETA, MR_GUIDED_BETA, USER_BETA = 5.0, 30.0, 1.0  # β of the quadratic, the Bowsher and a user's own penalty


class ReconstructionSettings(NamedTuple):
    """Method of a reconstruction and its parameters; None: the method's default, see `complete_settings`."""

    method: str = defaults.PET_METHOD
    iterations: int | Any = None
    subsets: int | Any = None
    beta: float | Any = None
    psf_mm: float = defaults.PET_PSF_MM  # FWHM
    post_filter_mm: float = 0.0  # FWHM
    penalty: Any = None  # name of one, a penalty, or a function of the image's shape and voxel size (mm) → penalty
    sampling: SamplingOptions = SamplingOptions()
    mr_guided: bool = False


def complete_settings(settings: ReconstructionSettings) -> ReconstructionSettings:
    """Complete the settings with the defaults of their method; the penalty becomes a Part.

    Raises:
        ConfigError: an unknown method, an option of another method, or a number out of range.
    """
    method = settings.method
    if method not in DEFAULTS:
        known = ", ".join(DEFAULTS)
        raise ConfigError(f"--method {method}; expected one of {known}{did_you_mean(method, DEFAULTS)}")
    for name in ("beta", "penalty"):
        if method not in PENALIZED and getattr(settings, name) is not None:
            raise ConfigError(f"--{name} goes with --method {_either(PENALIZED)}, not with {method}")
    own = settings.penalty is not None and settings.penalty not in PENALTIES
    if isinstance(settings.penalty, str) and own:
        near = did_you_mean(settings.penalty, PENALTIES)
        raise ConfigError(f"--penalty {settings.penalty}; expected {_either(PENALTIES)} or FILE.py:NAME{near}")
    if settings.penalty == "relative-difference" and method == "map-em":
        raise ConfigError("--penalty relative-difference has no surrogate for map-em; use --method svrg or bsrem")
    if own and settings.mr_guided:
        raise ConfigError("--penalty replaces the MR-guided penalty of --mr; expected one of them")
    if settings.mr_guided and method not in (*MR_GUIDED, *SAMPLERS):
        raise ConfigError(f"--mr goes with --method {_either((*MR_GUIDED, *SAMPLERS))}, not with {method}")
    if method == "kernel-em" and not settings.mr_guided:
        raise ConfigError("--method kernel-em needs --mr, the image whose voxels it compares")
    if method == "mlem" and settings.subsets not in (None, 1):
        raise ConfigError(f"--subsets {settings.subsets} makes it OSEM; expected 1 for mlem, or --method osem")
    if method in SAMPLERS and settings.subsets not in (None, 1):
        raise ConfigError(f"--subsets {settings.subsets}; {method} uses all data in every update")
    if method not in SAMPLERS and settings.sampling != SamplingOptions():
        options = "--prior, --network, --samples, --steps, --seed and --perpendicular"
        raise ConfigError(f"{options} go with {_either(SAMPLERS)}")
    beta = USER_BETA if own else MR_GUIDED_BETA if settings.mr_guided else BETA
    usual: dict[str, Any] = dict(zip(("iterations", "subsets", "beta"), (*DEFAULTS[method], beta), strict=True))
    chosen = settings._replace(**{name: value for name, value in usual.items() if getattr(settings, name) is None})
    check_seed(settings.sampling.seed)
    if method in SAMPLERS and settings.sampling.steps is None:
        chosen = chosen._replace(sampling=settings.sampling._replace(steps=SAMPLERS[method].steps))
    for name, most in (("steps", MAX_SAMPLING_STEPS), ("samples", MAX_SAMPLES)):
        if getattr(chosen.sampling, name) is not None:
            check_range(f"--{name}", getattr(chosen.sampling, name), 1, most)
    most = MAX_SAMPLING_STEPS if method in SAMPLERS else MAX_STEPS
    limits = {"iterations": (1, most), "subsets": (1, MAX_SUBSETS), "beta": (0, MAX_BETA)}
    limits |= dict.fromkeys(("psf_mm", "post_filter_mm"), (0, MAX_FWHM_MM))
    for name, ends in limits.items():
        check_range(f"--{name.replace('_', '-')}", getattr(chosen, name), *ends)
    return chosen._replace(penalty=as_part(settings.penalty)) if own else chosen


def settings_for_counts(
    settings: ReconstructionSettings,
    requested: ReconstructionSettings,
    counts_a_slice: float,
    possible: Sequence[int],
) -> ReconstructionSettings:
    """Settings whose default numbers of subsets and iterations suit the counts: fewer subsets, as many updates.

    OSEM sets voxels to 0 for good where a subset has no counts along their lines of response, so a subset should have
    500 counts a slice.

    Args:
        settings: complete ones.
        requested: as they were before `complete_settings`; what is set there stays.
        counts_a_slice: counts per slice of the image.
        possible: numbers of subsets that divide the views, see `medjax.pet.projection.possible_subsets`.

    Raises:
        ConfigError: the number of subsets is not a possible one.
    """
    if settings.subsets not in possible and requested.subsets is not None:
        expected = f"one of {', '.join(map(str, possible))}, which divide the views evenly"
        raise ConfigError(f"--subsets {settings.subsets}; expected {expected}")
    allowed = min(counts_a_slice / COUNTS_A_SUBSET, settings.subsets)
    subsets = max(number for number in possible if number <= max(allowed, 1))
    if settings.method != "osem" or requested.subsets is not None or subsets == settings.subsets:
        return settings
    iterations = min(-(-settings.iterations * settings.subsets // subsets), DEFAULTS["mlem"][0])
    iterations = settings.iterations if requested.iterations is not None else iterations
    return settings._replace(subsets=subsets, iterations=iterations)


def _either(names: Iterable[str]) -> str:
    """Names as a choice: a, b or c."""
    *first, last = names
    return f"{', '.join(first)} or {last}"


def title(settings: ReconstructionSettings) -> str:
    """Title of a reconstruction with these complete settings: method, iterations, subsets, β and filter."""
    name = NAMES[settings.method]
    if settings.method in SAMPLERS:
        samples, unit = pluralize(settings.sampling.samples, "sample"), SAMPLERS[settings.method].unit
        updates = "" if unit == CG_ITERATION else f", {pluralize(settings.iterations, unit)}"
        return f"{name}{updates}, {samples}"
    kind = "MR-guided, " * settings.mr_guided
    if settings.penalty is not None:
        kind += f"{settings.penalty if isinstance(settings.penalty, str) else settings.penalty.name}, "
    penalty = f", {kind}β = {settings.beta:g}" if settings.method in PENALIZED else ""
    subsets = f" × {settings.subsets} subsets" if settings.subsets > 1 else ""
    post = f", {settings.post_filter_mm:g} mm post-filter" if settings.post_filter_mm else ""
    return f"{name}, {pluralize(settings.iterations, 'iteration')}{subsets}{penalty}{post}"
