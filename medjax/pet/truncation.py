"""Truncation: activity outside the image grid, seen by the lines of response that miss the grid."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.pet.grid import Grid
from medjax.pet.lor_geometry import miss_image


class Truncation(NamedTuple):
    """Net counts (prompts − background) on lines of response that miss the image grid."""

    fraction: float  # of all net counts
    standard_deviations: float  # net counts there / √ prompts there

    @property
    def significant(self) -> bool:
        """More than 0.2 % of the net counts and 5 standard deviations: no noise, and not the edge of the blur."""
        return self.fraction > 0.002 and self.standard_deviations > 5


def truncation(
    end_points: Float[np.ndarray, "view bin 2 2"],
    grid: Grid,
    counts: Float[np.ndarray, "view bin *plane"],
    additive: Float[np.ndarray, "view bin *plane"],
) -> Truncation:
    """Truncation of an object by the transverse grid, from the data alone.

    A convex object that leaves a convex grid is always crossed by lines of response that miss the grid. The model has
    no voxel for their counts; those on lines that do cross the grid are put into its outer voxels.
    """
    beyond = miss_image(end_points, grid)
    prompts, background = (a.sum(axis=tuple(range(2, a.ndim)), dtype=float) for a in (counts, additive))
    net = prompts - background
    total, outside = float(net.sum()), float(net[beyond].sum())
    return Truncation(outside / total if total > 0 else 0.0, outside / float(np.sqrt(max(prompts[beyond].sum(), 1.0))))
