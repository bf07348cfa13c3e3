"""IVIM parameters of a region of interest: medians of its maps, or the fit of its mean signal.

Medians are over voxels as they were fitted; the mean signal is fitted once, with far less noise, but it is a sum of
different decays. Both give f, D, D* and f · D* under the names of `maps.named_maps`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.ivim.fit import fit
from medjax.ivim.maps import STEPS, named_maps
from medjax.ivim.signal import Ivim
from medjax.metrics.regions import region_statistics


def region_medians(parameters: Ivim, mask: Bool[Array | np.ndarray, "*voxels"]) -> dict[str, float]:
    """Median of f, D, D* and f · D* over the mask's voxels; NaN where it is empty.

    Raises:
        DataError: the shapes differ, or the mask has voxels but no finite one.
    """
    read = named_maps(parameters)
    if not mask.any():
        return dict.fromkeys(read, float("nan"))
    return {name: summary.median for name, summary in region_statistics(read, mask).maps.items()}


def fit_mean_signal(
    signals: Float[np.ndarray, "b *voxels"], bvalues: Float[np.ndarray, " b"], mask: Bool[np.ndarray, "*voxels"]
) -> dict[str, float]:
    """IVIM parameters of the mean signal over the mask, by least squares; absolute D*; NaN where the mask is empty."""
    mean = jnp.asarray(signals[:, mask].sum(1, keepdims=True) / max(mask.sum(), 1), jnp.float32)
    parameters = fit(mean, jnp.asarray(bvalues), steps=STEPS["gaussian"]).parameters
    return region_medians(parameters, np.full(1, mask.any()))
