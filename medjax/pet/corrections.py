"""What multiplicative factors and background hold: which corrections, in which convention, and that none is made twice.

medjax: counts ~ Poisson(multiplicative · P x + additive). `multiplicative` is attenuation e^−∫μ × normalisation
(efficiency), `additive` the expected randoms + scatter in counts.
STIR: counts ~ Poisson((P x + additive) / correction). Its normalisation and attenuation *correction* factors are
reciprocals of medjax's factors, and its additive sinogram is divided by them.
"""

import warnings
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError, DataError
from medjax.io.counts import CORRECTIONS
from medjax.pet.scan import Scan

ADDITIVE_CONVENTIONS = ("counts", "divided")
MULTIPLICATIVE_CONVENTIONS = ("factors", "corrections")
GROUPS = 10  # of lines of response, by their factors
MANY = 20_000_000  # bins, of which a check looks at a part
RECIPROCAL, MIN_VARIATION = -0.8, 0.2  # slope of log background, and sd of log factors from which it tells something
SMOOTHER = 0.5  # roughness of background × factors relative to the background's, below which it is divided by them
MIN_INCREASE = 1.5  # of correction factors, from lines of response past the object to those through its middle
Sinogram = Float[np.ndarray, "view bin plane"]


def parse_corrections(text: str, option: str = "--corrections") -> tuple[str, ...]:
    """Corrections named in a text such as "attenuation, normalisation" or "none", in medjax's words.

    Raises:
        ConfigError: one is not known.
    """
    names = [" ".join(name.lower().split()) for name in text.strip("{} \t").split(",")]
    names = [name.removesuffix(" correction").removesuffix(" corrected") for name in names]
    names = ["arc correction" if name == "arc" else name.replace("normalization", "normalisation") for name in names]
    held = tuple(dict.fromkeys(name for name in names if name not in ("none", "")))
    if unknown := [name for name in held if name not in CORRECTIONS]:
        raise ConfigError(f"{option} {', '.join(unknown)}; expected none, or some of {', '.join(CORRECTIONS)}")
    return held


def missing_corrections(corrections: Iterable[str]) -> tuple[str, ...]:
    """Of attenuation and normalisation, which a quantitative image needs, those that are not held."""
    return tuple(effect for effect in ("attenuation", "normalisation") if effect not in corrections)


def efficiencies(name: str, factors: Sinogram, convention: str) -> Sinogram:
    """Multiplicative factors, attenuation × normalisation, from a file's values in its convention.

    Args:
        name: of the file, for messages.
        factors: values in the file.
        convention: "factors": those that expected counts are multiplied by; "corrections": their reciprocals, by which
            measured counts are multiplied to correct them; 0 stays 0.

    Raises:
        DataError: values called factors are those of attenuation correction: 1 past the object, more through it.
    """
    if convention == "corrections":
        return np.where(factors > 0, 1 / np.where(factors > 0, factors, 1), 0).astype(np.float32)
    if _are_corrections(factors):
        raise DataError(
            f"{name}: {factors[factors > 0].min():.3g} past the object and up to {factors.max():.3g} through it, as "
            "attenuation correction factors e^+∫μ are; expected attenuation × normalisation: give "
            "--multiplicative-convention corrections"
        )
    return factors


def background_counts(
    additive: Float[np.ndarray, "view bin plane *tof"],
    multiplicative: Float[np.ndarray, "view bin plane *#tof"],
    convention: str,
) -> Float[np.ndarray, "view bin plane *tof"]:
    """Expected randoms + scatter in counts, from values in counts or divided by the multiplicative factors (STIR)."""
    return additive * multiplicative if convention == "divided" else additive


def check_background(name: str, scan: Scan) -> None:
    """Check that the expected background leaves room for activity, in all lines of response and where factors are low.

    A background divided by the factors (STIR) is largest where these are lowest; scatter may be too, but is smooth
    along the bins, while what is divided has the edges of the factors. Warns where it varies as their reciprocal and
    is smoother when multiplied by them.

    Raises:
        DataError: the background explains all counts, or exceeds by half and 5 standard deviations those of a tenth of
            the lines of response, by their factors.
    """
    every = max(scan.multiplicative.size // MANY, 1)  # of many bins some tell as much
    chosen = np.flatnonzero(scan.multiplicative.reshape(-1)[::every] > 0) * every
    factors = scan.multiplicative.reshape(-1)[chosen]
    counts, additive = (
        a.reshape(scan.multiplicative.size, -1)[chosen].sum(axis=1) for a in (scan.counts, scan.additive)
    )
    total, background = float(counts.sum(dtype=float)), float(additive.sum(dtype=float))
    remedy = "if it is divided by the multiplicative factors, as in STIR, give --additive-convention divided"
    for part in [slice(None), *np.array_split(np.argsort(factors), GROUPS)]:
        here, expected = float(counts[part].sum(dtype=float)), float(additive[part].sum(dtype=float))
        if expected > 1.5 * here + 5 * max(here, 1) ** 0.5:
            raise DataError(
                f"{name}: expected background (randoms + scatter) of {expected:.3g}, but {here:.3g} counts in "
                f"{additive[part].size} bins; expected it in counts: {remedy}"
            )
    if background >= total:
        raise DataError(f"{name}: the counts are explained by the background alone; expected some activity")
    if _slope(factors, additive) < RECIPROCAL:
        whole, seen = scan.additive.reshape(*scan.multiplicative.shape, -1).sum(axis=-1), scan.multiplicative > 0
        if _roughness(whole * scan.multiplicative) < SMOOTHER * _roughness(np.where(seen, whole, 0)):
            warnings.warn(f"{name}: the background varies as the reciprocal of the factors: {remedy}", stacklevel=3)


def _slope(factors: np.ndarray, additive: np.ndarray) -> float:
    """Slope of log additive against log factors, by least squares; 0 where factors hardly vary."""
    positive = np.flatnonzero(additive > 0)[:: max(additive.size // 1_000_000, 1)]
    x, y = np.log(factors[positive].astype(float)), np.log(additive[positive].astype(float))
    return float(np.cov(x, y)[0, 1] / x.var()) if x.size > 1 and x.std() > MIN_VARIATION else 0.0


def _roughness(values: Sinogram) -> float:
    """Mean third difference of log values along the bins, which is 0 for a Gaussian; of at most some dozen planes."""
    some = values[:, :, :: max(values.shape[2] // 12, 1)].astype(float)
    logs = np.log(np.where(some > 0, some, np.nan))
    differences = np.abs(np.diff(logs, n=3, axis=1))
    return float(differences[np.isfinite(differences)].mean()) if np.isfinite(differences).any() else 0.0


def _are_corrections(factors: Sinogram) -> bool:
    """Whether values are 1 or more and grow towards the middle bins, as e^+∫μ does; e^−∫μ falls there."""
    positive = factors > 0
    if not positive.any() or not 0.99 <= factors[positive].min() <= 1.05:
        return False
    sums, numbers = factors.sum(axis=(0, 2), dtype=float), positive.sum(axis=(0, 2))
    profile = sums[numbers > 0] / numbers[numbers > 0]
    eighth = max(len(profile) // 8, 1)
    edges = np.concatenate([profile[:eighth], profile[-eighth:]]).mean()
    return float(profile.max()) > MIN_INCREASE * float(edges)
