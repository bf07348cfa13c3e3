"""Scatter estimation by rounds: reconstruct, simulate the scatter of the image, scale it to the tails, and again.

simulate = functools.partial(simulate_scatter, mu=mu, grid=grid, scanner=scanner, planes=planes, window=window)
reconstruct = lambda additive: …            # image from the counts with this background; attenuation corrected
estimate = estimate_scatter(reconstruct, simulate, counts, randoms, normalization, tails, planes)
image = reconstruct(randoms + estimate.scatter)
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.errors import ConfigError, DataError
from medjax.pet.michelogram import Michelogram
from medjax.pet.scatter_tails import ScatterScale, fit_scatter_scale


class ScatterEstimate(NamedTuple):
    """Expected scatter in counts, its last scale, and how much each round has changed it, as a fraction of its sum."""

    scatter: Float[np.ndarray, "view bin plane"]
    scale: ScatterScale
    changes: tuple[float, ...]


def estimate_scatter(
    reconstruct: Callable[[Float[np.ndarray, "view bin plane"]], Float[Array, "x y z"]],
    simulate: Callable[[Float[Array, "x y z"]], Float[Array, "view bin plane"]],
    counts: Float[np.ndarray, "view bin plane"],
    randoms: Float[np.ndarray, "view bin plane"],
    normalization: Float[np.ndarray, "view bin plane"],
    tails: Bool[np.ndarray, "view bin plane"],
    planes: Michelogram,
    *,
    rounds: int = 3,
    fwhm_planes: float | None = None,
    method: Literal["poisson", "least-squares"] = "poisson",
    bounds: tuple[float, float] = (0.2, 5.0),
) -> ScatterEstimate:
    """Expected scatter of the counts, from no scatter at first; see `fit_scatter_scale` for the last arguments.

    Args:
        reconstruct: image from an additive background in counts (randoms + scatter of the round before), with
            attenuation corrected.
        simulate: scatter of an image in image units × mm, such as `simulate_scatter` with all but its image bound.
        counts: measured prompts.
        randoms: expected randoms in counts.
        normalization: factors that turn image units × mm into counts, without attenuation; 0 in gaps.
        tails: bins outside the body, as `tail_mask` gives them.
        planes: planes of the sinogram.
        rounds: number of rounds; 2 to 4 are usual.
        fwhm_planes: smoothing of a scale a plane; None: a scale a segment.
        method: Poisson maximum likelihood or least squares.
        bounds: smallest and largest scale.

    Raises:
        ConfigError: fewer than 1 round.
        DataError: as `fit_scatter_scale`; an image that is not finite.
    """
    if rounds < 1:
        raise ConfigError(f"rounds of scatter estimation: {rounds}; expected 1 or more")
    scatter = np.zeros_like(randoms)
    changes: list[float] = []
    for number in range(rounds):
        image = reconstruct(randoms + scatter)
        if not np.isfinite(np.asarray(image)).all():
            raise DataError(f"image of round {number + 1} of the scatter estimation: holds values that are not finite")
        simulated = np.asarray(normalization * np.asarray(simulate(image)), randoms.dtype)
        scale = fit_scatter_scale(
            counts, randoms, simulated, tails, planes, fwhm_planes=fwhm_planes, method=method, bounds=bounds
        )
        before, scatter = scatter, simulated * scale.scale.astype(simulated.dtype)
        total = float(scatter.sum(dtype=float))
        changes.append(float(np.abs(scatter - before).sum(dtype=float)) / total if total else 0.0)
    return ScatterEstimate(scatter, scale, tuple(changes))
