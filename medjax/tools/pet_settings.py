"""How `medjax pet reconstruct` reconstructs: its methods, their defaults, and which options go with which."""

from typing import Any, NamedTuple

from medjax.errors import ConfigError
from medjax.running.config import did_you_mean
from medjax.running.part_identity import as_part
from medjax.tools.checks import at_least, counted
from medjax.tools.pet_defaults import METHOD, PSF_MM
from medjax.tools.pet_sample import SAMPLERS, Sampling

DEFAULTS = {  # iterations, subsets
    "osem": (3, 21), "mlem": (30, 1), "map-em": (10, 7), "dds": (4, 1), "likelihood-schedule": (20, 1)
}  # fmt: skip
BETA, GUIDED_BETA, OWN_BETA = 5.0, 30.0, 1.0  # of the built-in penalty, of the MR-guided one, of a user's own


class Settings(NamedTuple):
    """A method and its numbers; None stands for the method's default, which `complete_settings` fills in."""

    method: str = METHOD
    iterations: int | Any = None
    subsets: int | Any = None
    beta: float | Any = None
    psf_mm: float = PSF_MM
    post_filter_mm: float = 0.0
    penalty: Any = None  # with a surrogate, or a function of the image's shape and voxel size (mm) that gives one
    sampling: Sampling = Sampling()
    guided: bool = False  # by an MR image


def complete_settings(given: Settings) -> Settings:
    """The settings with their defaults filled in, and the penalty as a Part.

    Raises:
        ConfigError: an unknown method, an option that does not go with it, or a number out of range.
    """
    method = given.method
    if method not in DEFAULTS:
        known = ", ".join(DEFAULTS)
        raise ConfigError(f"--method {method}; expected one of {known}{did_you_mean(method, DEFAULTS)}")
    for name in ("beta", "penalty"):
        if method != "map-em" and getattr(given, name) is not None:
            raise ConfigError(f"--{name} goes with --method map-em, not with {method}")
    if given.penalty is not None and given.guided:
        raise ConfigError("--penalty takes the place of the one that --mr guides; expected one of them")
    if given.guided and method not in ("map-em", *SAMPLERS):
        raise ConfigError(f"--mr goes with --method map-em and {' and '.join(SAMPLERS)}, not with {method}")
    if method == "mlem" and given.subsets not in (None, 1):
        raise ConfigError(f"--subsets {given.subsets} makes it OSEM; expected 1 for mlem, or --method osem")
    if method in SAMPLERS and given.subsets not in (None, 1):
        raise ConfigError(f"--subsets {given.subsets}; {method} uses all data in every update")
    if method not in SAMPLERS and given.sampling != Sampling():
        options = "--prior, --network, --samples, --steps, --seed and --perpendicular"
        raise ConfigError(f"{options} go with {' and '.join(SAMPLERS)}")
    beta = OWN_BETA if given.penalty is not None else GUIDED_BETA if given.guided else BETA
    usual: dict[str, Any] = dict(zip(("iterations", "subsets", "beta"), (*DEFAULTS[method], beta), strict=True))
    chosen = given._replace(**{name: value for name, value in usual.items() if getattr(given, name) is None})
    for name in ("steps", "samples"):
        at_least(f"--{name}", getattr(given.sampling, name), 1)
    for name, least in {"iterations": 1, "subsets": 1, "beta": 0, "psf_mm": 0, "post_filter_mm": 0}.items():
        at_least(f"--{name.replace('_', '-')}", getattr(chosen, name), least)
    return chosen if given.penalty is None else chosen._replace(penalty=as_part(given.penalty))


def title(settings: Settings) -> str:
    """What complete settings do, in a few words."""
    name = settings.method.upper()
    if settings.method in SAMPLERS:
        updates = counted(settings.iterations, SAMPLERS[settings.method]) + " of MLEM" * (settings.method != "dds")
        return f"{name}, {updates}, {counted(settings.sampling.samples, 'sample')}"
    kind = "MR-guided, " * settings.guided if settings.penalty is None else f"{settings.penalty.name}, "
    penalty = f", {kind}β = {settings.beta:g}" if settings.method == "map-em" else ""
    subsets = f" × {settings.subsets} subsets" if settings.subsets > 1 else ""
    post = f", {settings.post_filter_mm:g} mm post-filter" if settings.post_filter_mm else ""
    return f"{name}, {counted(settings.iterations, 'iteration')}{subsets}{penalty}{post}"
