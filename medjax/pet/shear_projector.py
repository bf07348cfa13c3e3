"""Projection and back-projection by shears, a fast model for few slices: see `shear_system`.

    project(system, image)        (x, y, slice) → (view, bin, slice)     image rows, shifted and added up; then bins
    backproject(system, sinogram) (view, bin, slice) → (x, y, slice)     the transpose, as contiguous reads

One linear primitive and its transpose, as in `projector`; a batch is carried as more slices.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.pet.axial import windows
from medjax.pet.gathers import add_up, pipeline, take_or_zero, varying
from medjax.pet.linear_pair import linear_pair
from medjax.pet.shear_system import ShearFan, ShearSystem

_ROWS_A_STEP = 16  # image rows fused in one step of the projection
_FAMILIES_A_STEP = 15  # families of lines fused in one step of the back-projection


def project(system: ShearSystem, image: Float[Array, "x y slice"]) -> Float[Array, "view bin slice"]:
    """Forward projection: line integrals of `image` along the lines of response of `system`, in image units × mm.

    Raises:
        DataError: the image is not of the system's shape.
    """
    if image.shape[:2] != system.shape:
        raise DataError(f"image: shape {image.shape}; the system has (x, y) = {system.shape}")
    leaves, treedef = jax.tree.flatten(system)
    return _project_p.bind(varying(image, *leaves), *leaves, system=treedef)


def backproject(system: ShearSystem, sinogram: Float[Array, "view bin slice"]) -> Float[Array, "x y slice"]:
    """Back-projection, the transpose of `project`.

    Raises:
        DataError: the sinogram is not of the system's shape.
    """
    if sinogram.shape[:2] != system.column.shape:
        raise DataError(f"sinogram: shape {sinogram.shape}; the system has (view, bin) = {system.column.shape}")
    leaves, treedef = jax.tree.flatten(system)
    return _backproject_p.bind(varying(sinogram, *leaves), *leaves, system=treedef)


def _project(image: Array, *leaves: Array, system: Any) -> Array:
    geometry: ShearSystem = jax.tree.unflatten(system, leaves)
    image = _inside(geometry, image)
    columns = jnp.concatenate(
        [_shear(fan, image if fan.along_x else jnp.swapaxes(image, 0, 1)) for fan in geometry.fans]
    )
    beyond = jnp.asarray(geometry.beyond, image.dtype)[..., None]
    first, second = (take_or_zero(columns, jnp.asarray(geometry.column) + k) for k in range(2))
    return ((1 - beyond) * first + beyond * second) * jnp.asarray(geometry.length_mm, image.dtype)[..., None]


def _backproject(sinogram: Array, *leaves: Array, system: Any) -> Array:
    geometry: ShearSystem = jax.tree.unflatten(system, leaves)
    weighted = sinogram * jnp.asarray(geometry.length_mm, sinogram.dtype)[..., None]
    flat = weighted.reshape(-1, sinogram.shape[-1])
    parts = []
    for fan in geometry.fans:
        rows = _shear_transpose(fan, flat, geometry.shape if fan.along_x else geometry.shape[::-1])
        parts.append(rows if fan.along_x else jnp.swapaxes(rows, 0, 1))
    return _inside(geometry, add_up(parts))


def _inside(system: ShearSystem, image: Array) -> Array:
    return image if system.inside is None else jnp.where(jnp.asarray(system.inside)[..., None], image, 0)


def _shifts(fan: ShearFan, dtype: Any) -> tuple[Array, Array]:
    """Whole columns of each shift, `(family, row)`, and what lies beyond them."""
    shift = jnp.asarray(fan.shift, dtype)
    whole = jnp.floor(shift)
    return whole.astype(jnp.int32), shift - whole


def _shear(fan: ShearFan, rows: Array) -> Array:
    """Rows (row, y, slice), shifted and added up: the columns of all families, `(family · column, slice)`."""
    number, width, slices = rows.shape
    families, columns = len(fan.shift), width + 2 * fan.margin
    padding = 2 * fan.margin + 2
    steps = -(-number // _ROWS_A_STEP)
    filled = jnp.pad(rows, ((0, steps * _ROWS_A_STEP - number), (padding, padding), (0, 0)))
    table = filled.reshape(steps, _ROWS_A_STEP, -1)
    whole, beyond = (
        jnp.pad(a, ((0, 0), (0, steps * _ROWS_A_STEP - number))).T.reshape(steps, _ROWS_A_STEP, -1)
        for a in _shifts(fan, rows.dtype)
    )

    def prepare(step: Array) -> tuple[Array, Array, Array]:
        return table[step], slices * (whole[step] + padding - fan.margin), beyond[step][..., None]

    def accumulate(total: Array, prepared: tuple[Array, Array, Array]) -> Array:
        lines, start, fraction = prepared
        for r in range(_ROWS_A_STEP):
            read = windows(lines[r], start[r], (columns + 1) * slices)
            total = total + ((1 - fraction[r]) * read[:, :-slices] + fraction[r] * read[:, slices:])
        return total

    zeros = varying(jnp.zeros((families, columns * slices), rows.dtype), rows)
    return pipeline((prepare,), accumulate, zeros, steps).reshape(families * columns, slices)


def _shear_transpose(fan: ShearFan, lors: Array, shape: tuple[int, int]) -> Array:
    """Rows (row, y, slice) of an image of this shape from the lines of response `(line, slice)`."""
    (number, width), slices = shape, lors.shape[-1]
    weight = jnp.asarray(fan.weight, lors.dtype)[..., None]
    columns = add_up([weight[:, :, k] * take_or_zero(lors, fan.lor_index[..., k]) for k in range(weight.shape[2])])
    families = len(columns)
    steps = -(-families // _FAMILIES_A_STEP)
    more = (0, steps * _FAMILIES_A_STEP - families)
    table = jnp.pad(columns, (more, (2, 2), (0, 0))).reshape(steps, _FAMILIES_A_STEP, -1)
    whole, beyond = (jnp.pad(a, (more, (0, 0))).reshape(steps, _FAMILIES_A_STEP, -1) for a in _shifts(fan, lors.dtype))

    def prepare(step: Array) -> tuple[Array, Array, Array]:
        return table[step], slices * (fan.margin + 1 - whole[step]), beyond[step][..., None]

    def accumulate(total: Array, prepared: tuple[Array, Array, Array]) -> Array:
        lines, start, fraction = prepared
        for r in range(_FAMILIES_A_STEP):
            read = windows(lines[r], start[r], (width + 1) * slices)
            total = total + ((1 - fraction[r]) * read[:, slices:] + fraction[r] * read[:, :-slices])
        return total

    zeros = varying(jnp.zeros((number, width * slices), lors.dtype), lors)
    return pipeline((prepare,), accumulate, zeros, steps).reshape(number, width, slices)


_project_p, _backproject_p = linear_pair("pet_project_shear", (_project, _backproject))
