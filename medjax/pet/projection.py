"""Projection with any system: direct planes (`system`, `shear_system`), oblique planes (`system3d`), lines, events.

project(system, image)          line integrals in image units × mm, as the system's own module documents
backproject(system, sinogram)   the transpose
subsets(system, number)         interleaved subsets of the views (of the lines), and which they are
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from medjax.errors import ConfigError, DataError
from medjax.pet import (
    list_system,
    lor_projector,
    projector,
    projector3d,
    shear_projector,
    shear_system,
    system,
    system3d,
)
from medjax.pet.list_system import ListSystem
from medjax.pet.lor_system import LorSystem
from medjax.pet.shear_system import ShearSystem
from medjax.pet.system import System
from medjax.pet.system3d import System3D

AnySystem = System | ShearSystem | System3D | LorSystem | ListSystem


class _Kind(NamedTuple):
    project: Callable[..., Array]
    backproject: Callable[..., Array]
    subsets: Callable[..., tuple[AnySystem, np.ndarray]]
    possible_subsets: Callable[..., list[int]]


def _no_subsets(system: AnySystem, number: int) -> tuple[AnySystem, np.ndarray]:
    raise ConfigError(f"{number} subsets of single lines; expected a system for each: see `listmode.acquire_events`")


_KINDS = {
    System: _Kind(projector.project, projector.backproject, system.subsets, system.possible_subsets),
    ShearSystem: _Kind(
        shear_projector.project, shear_projector.backproject, shear_system.one_subset, lambda system: [1]
    ),
    System3D: _Kind(projector3d.project, projector3d.backproject, system3d.subsets3d, system3d.possible_subsets3d),
    LorSystem: _Kind(lor_projector.project, lor_projector.backproject, _no_subsets, lambda system: [1]),
    ListSystem: _Kind(list_system.project, list_system.backproject, _no_subsets, lambda system: [1]),
}


def project(system: AnySystem, image: Float[Array, "x y z"]) -> Float[Array, "*bin"]:
    """Forward projection of an image: see the system's module."""
    return _KINDS[type(system)].project(system, image)


def backproject(system: AnySystem, sinogram: Float[Array, "*bin"]) -> Float[Array, "x y z"]:
    """Back-projection, the transpose of `project`."""
    return _KINDS[type(system)].backproject(system, sinogram)


def subsets(system: AnySystem, number: int) -> tuple[AnySystem, Int[np.ndarray, "subset member"]]:
    """Interleaved subsets as one system with a leading axis, and the views (lines) of each.

    Raises:
        ConfigError: that number does not divide them.
    """
    return _KINDS[type(system)].subsets(system, number)


def possible_subsets(system: AnySystem) -> list[int]:
    """Numbers of subsets that divide the views evenly."""
    return _KINDS[type(system)].possible_subsets(system)


def image_shape(system: AnySystem, sinogram: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape (x, y, z) of the image that goes with a sinogram of this shape.

    Raises:
        DataError: the sinogram does not fit the system.
    """
    if isinstance(system, System | ShearSystem):
        own = system.row_index.shape if isinstance(system, System) else system.column.shape
        if len(sinogram) != 3 or sinogram[:2] != own:
            raise DataError(f"counts: shape {sinogram}; the system has (view, bin) = {own}")
        return (*system.shape, sinogram[2])
    if sinogram != system.sinogram_shape:
        raise DataError(f"counts: shape {sinogram}; the system has {system.sinogram_shape}")
    return system.shape
