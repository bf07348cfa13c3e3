"""What no warp removes between brains: thickness of the cortex, width of the sulci, size of the ventricles.

Boundaries between fractions of tissues are shifted by millimetres, by grey-scale dilation or erosion; every voxel's
fractions keep their sum.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.io.nifti import Number
from medjax.phantoms.mni import ellipsoid, voxel_coordinates

DEEP_MM = (0.0, -12.0, 12.0), (32.0, 58.0, 30.0)  # centre and radii, MNI, within which fluid is of the ventricles
# Smallest and largest shift of each boundary, mm: a cortex of 2.5 mm varies by a fifth; sulci and ventricles with age.
CORTEX_MM, SULCI_MM, VENTRICLES_MM = (-0.6, 0.6), (-0.3, 0.9), (-0.8, 2.5)


class Variation(NamedTuple):
    """Shifts of boundaries between tissues, mm."""

    cortex_mm: float = 0.0  # of the grey–white boundary into the white matter: a thicker cortex
    sulci_mm: float = 0.0  # of the outer surface of the brain inwards: wider sulci
    ventricles_mm: float = 0.0  # of the ventricles' walls outwards


def random_variation(draw: np.random.Generator) -> Variation:
    """Random shifts, uniform between those of this module."""
    cortex, sulci, ventricles = (float(draw.uniform(*ends)) for ends in (CORTEX_MM, SULCI_MM, VENTRICLES_MM))
    return Variation(cortex, sulci, ventricles)


def vary_tissues(
    tissues: dict[str, Float[np.ndarray, "x y z"]], affine: Float[np.ndarray, "4 4"], variation: Variation
) -> dict[str, Float[np.ndarray, "x y z"]]:
    """Tissues with their boundaries shifted; fractions of each voxel keep their sum.

    Args:
        tissues: fractions, as from `mni.tissue_fractions`.
        affine: voxel → mm, axis-aligned; the brain in MNI's space.
        variation: the shifts.
    """
    size = float(np.abs(affine[0, 0]))
    inner = ellipsoid(voxel_coordinates(tissues["gray"].shape, affine), *DEEP_MM, edge_mm=8)
    gray, white, fluid = (tissues[name].copy() for name in ("gray", "white", "fluid"))
    deep = tissues["thalamus"] + tissues["brainstem"]

    ventricles = fluid * inner
    change = shift_boundary(ventricles, variation.ventricles_mm / size) - ventricles
    taken = np.minimum(np.maximum(change, 0), gray + white)
    kept = 1 - taken / np.maximum(gray + white, 1e-6)
    filled = np.minimum(np.maximum(-change, 0), fluid)
    gray, white, fluid = gray * kept, white * kept + filled, fluid + taken - filled

    matter = gray + white + deep
    change = (1 - inner) * (shift_boundary(matter, -variation.sulci_mm / size) - matter)
    lost = np.minimum(np.maximum(-change, 0), gray + white)
    kept, gained = 1 - lost / np.maximum(gray + white, 1e-6), np.minimum(np.maximum(change, 0), fluid)
    gray, white, fluid = gray * kept + gained, white * kept, fluid + lost - gained

    core = white + deep + fluid * inner
    change = shift_boundary(core, -variation.cortex_mm / size) - core
    change = np.clip(change, -white, gray)
    return tissues | {"gray": gray - change, "white": white + change, "fluid": fluid}


def shift_boundary(fraction: Float[np.ndarray, "x y z"], voxels: Number) -> Float[np.ndarray, "x y z"]:
    """Fraction of a tissue with its boundary shifted outwards by `voxels`, inwards if negative: grey-scale dilation.

    Between whole steps of one voxel (six neighbours) images are interpolated.
    """
    steps, rest = divmod(abs(voxels), 1.0)
    extreme = np.maximum if voxels >= 0 else np.minimum
    for _ in range(int(steps)):
        fraction = _step(fraction, extreme)
    return fraction + np.float32(rest) * (_step(fraction, extreme) - fraction) if rest else fraction


def _step(image: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """Largest or smallest value of each voxel and its six neighbours."""
    out = image.copy()
    for axis in range(image.ndim):
        here, there = [slice(None)] * image.ndim, [slice(None)] * image.ndim
        here[axis], there[axis] = slice(1, None), slice(None, -1)
        ahead, behind = tuple(here), tuple(there)
        extreme(out[ahead], image[behind], out=out[ahead])
        extreme(out[behind], image[ahead], out=out[behind])
    return out
