"""Projection and back-projection: line integrals in mm of a slice stack, and their exact transpose.

    project(system, image)        (x, y, slice) → (view, bin, slice)     Σ over rows of length · linear interpolation
    backproject(system, sinogram) (view, bin, slice) → (x, y, slice)     the transpose, as a gather: no scatter anywhere

Both are one linear primitive and its transpose, so either can be differentiated any number of times in either
direction (the derivative of one is the other), and a vmapped axis is folded into the slice axis. Nothing is jitted
here, no matrix is stored, and `shard_map` over the leading axis of `system.subsets` splits the views over devices.

What makes it fast on a CPU: slices and symmetric views are contiguous, so one index fetches a row of them; the
transpose gathers by the LOR look-up table; the loop carries the next step's indices and weights, since XLA:CPU would
otherwise recompute them for every slice; reads are made safe by weights of 0, not by bounds checks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

from medjax.errors import DataError
from medjax.pet.lor_table import CELL_WIDTH
from medjax.pet.system import AnyArray, Fan, System

_ROWS_A_STEP = 4  # image rows fused in one step of the projection
_SLICES_A_PASS = 64  # slices that are projected at once, to stay in cache


def project(system: System, image: Float[Array, "x y slice"]) -> Float[Array, "view bin slice"]:
    """Forward projection: line integrals of `image` along the lines of response of `system`, in image units × mm.

    Raises:
        DataError: the image is not of the system's shape (its reads are not bounds-checked).
    """
    if image.shape[:2] != system.shape:
        raise DataError(f"image: shape {image.shape}; the system has (x, y) = {system.shape}")
    leaves, treedef = jax.tree.flatten(system)
    return _project_p.bind(_varying(image, *leaves), *leaves, system=treedef)


def backproject(system: System, sinogram: Float[Array, "view bin slice"]) -> Float[Array, "x y slice"]:
    """Back-projection, the transpose of `project`: each voxel sums sinogram × length (mm) over its lines of response.

    Raises:
        DataError: the sinogram is not of the system's shape.
    """
    if sinogram.shape[:2] != system.row_index.shape:
        raise DataError(f"sinogram: shape {sinogram.shape}; the system has (view, bin) = {system.row_index.shape}")
    leaves, treedef = jax.tree.flatten(system)
    return _backproject_p.bind(_varying(sinogram, *leaves), *leaves, system=treedef)


def _project(image: Array, *leaves: Array, system: Any) -> Array:
    geometry: System = jax.tree.unflatten(system, leaves)
    return _in_passes(partial(_project_slices, geometry), image)


def _backproject(sinogram: Array, *leaves: Array, system: Any) -> Array:
    geometry: System = jax.tree.unflatten(system, leaves)
    return _in_passes(partial(_backproject_slices, geometry), sinogram)


def _in_passes(apply: Callable[[Array], Array], stack: Array) -> Array:
    """`apply` over the last axis, at most `_SLICES_A_PASS` at a time so that a pass stays in cache."""
    slices = stack.shape[-1]
    passes = -(-slices // _SLICES_A_PASS)
    if passes == 1:
        return apply(stack)
    width = -(-slices // passes)
    padded = jnp.pad(stack, ((0, 0), (0, 0), (0, passes * width - slices)))
    split = jnp.moveaxis(padded.reshape(*stack.shape[:2], passes, width), 2, 0)
    joined = jnp.moveaxis(lax.map(apply, split), 0, 2)
    return joined.reshape(*joined.shape[:2], -1)[..., :slices]


def _project_slices(system: System, image: Array) -> Array:
    slices = image.shape[-1]
    rows = [_fan_project(fan, image).reshape(-1, slices) for fan in system.fans]
    sinogram = _take_or_zero(rows[0] if len(rows) == 1 else jnp.concatenate(rows), system.row_index)
    return sinogram * system.length_mm.astype(image.dtype)[..., None]


def _backproject_slices(system: System, sinogram: Array) -> Array:
    parts = [
        _fan_backproject(fan, sinogram * system.length_mm.astype(sinogram.dtype)[..., None], system.shape)
        for fan in system.fans
    ]
    return sum(parts[1:], parts[0])


def _fan_project(fan: Fan, image: Array) -> Array:
    """Each symmetric view's sum over rows: `(view, ray, symmetric view, slice)`."""
    dtype = image.dtype
    position, slope = jnp.asarray(fan.position, dtype), jnp.asarray(fan.slope, dtype)
    images = jnp.stack([jnp.rot90(image, -turn) for turn in fan.quarter_turns], axis=2)
    nrows, width = images.shape[:2]
    steps = -(-nrows // _ROWS_A_STEP)
    if nrows % _ROWS_A_STEP:
        images = jnp.pad(images, ((0, steps * _ROWS_A_STEP - nrows), (0, 0), (0, 0), (0, 0)))
    table = images.reshape(steps, _ROWS_A_STEP * width, -1)
    row_start = width * jnp.arange(_ROWS_A_STEP)[:, None, None]

    def prepare(step: Array) -> tuple[Array, Array, Array]:
        row = (step * _ROWS_A_STEP + jnp.arange(_ROWS_A_STEP)).astype(dtype)[:, None, None] - (nrows - 1) / 2
        crossing = position[None] + slope[None] * row
        below = jnp.clip(jnp.floor(crossing), 0, width - 2)  # both neighbours exist; outside, both weights are 0
        return table[step], below.astype(jnp.int32) + row_start, crossing - below

    def accumulate(total: Array, prepared: tuple[Array, Array, Array]) -> Array:
        rows, below, beyond = prepared
        for r in range(_ROWS_A_STEP):
            first, second = (jnp.maximum(0, 1 - jnp.abs(beyond[r] - k))[..., None] for k in range(2))
            total = total + (first * _take(rows, below[r]) + second * _take(rows, below[r] + 1))
        return total

    total = jnp.zeros((*position.shape, table.shape[-1]), dtype)
    return _pipelined(prepare, accumulate, _varying(total, image), steps)


def _fan_backproject(fan: Fan, sinogram: Array, shape: tuple[int, int]) -> Array:
    """Back-projection of the fan's lines of response.

    With four symmetric views only half of the image rows are computed: views two quarter turns apart hold each other's
    other half.
    """
    symmetric = len(fan.quarter_turns) == 4
    rows, width = shape if fan.quarter_turns[0] % 2 == 0 else shape[::-1]
    row = jnp.arange(rows // 2 if symmetric else 0, rows) - (rows - 1) / 2
    selected = _take_or_zero(sinogram.reshape(-1, sinogram.shape[-1]), fan.lor_index)
    views, bins, symmetric_views, slices = selected.shape
    out = _gather_lines(fan, selected.reshape(views, bins, -1), row, width).reshape(-1, width, symmetric_views, slices)
    if not symmetric:
        return jnp.rot90(out[:, :, 0], fan.quarter_turns[0])
    whole = [jnp.concatenate([jnp.rot90(out[:, :, k + 2], 2)[: rows // 2], out[:, :, k]]) for k in range(2)]
    return whole[0] + jnp.rot90(whole[1])


def _gather_lines(fan: Fan, selected: Array, row: Array, width: int) -> Array:
    """Σ over views and lines of the table of max(0, 1 − |crossing − y|) · line: `(row, y, symmetric view · slice)`."""
    dtype = selected.dtype
    views, bins = selected.shape[:2]
    cells, entries = fan.table.shape[1:]
    taps = (entries - 1) // 2
    together = next(n for n in (2, 3, 1) if views % n == 0)
    steps = views // together
    lines = selected.reshape(steps, together * bins, -1)
    table = fan.table.astype(dtype).reshape(steps, together * cells, entries)
    mean_slope = fan.mean_slope.astype(dtype).reshape(steps, together, 1, 1)
    view = jnp.arange(together)[:, None, None]
    x, y = row.astype(dtype)[None, :, None], jnp.arange(width, dtype=dtype)[None, None]

    def find_cell(step: Array) -> Array:
        u = y - mean_slope[step] * x
        return jnp.floor((u - 1 - fan.table_start) / CELL_WIDTH).astype(jnp.int32) + view * cells

    def prepare(step: Array, cell: Array) -> tuple[Array, Array, tuple[Array, ...]]:
        entry = _take_slices(table[step], cell)
        u = y - mean_slope[step] * x
        distance = [entry[..., 1 + k] + entry[..., 1 + taps + k] * x - u for k in range(taps)]
        first = entry[..., 0].astype(jnp.int32) + view * bins
        return lines[step], first, tuple(jnp.maximum(0, 1 - jnp.abs(d)) for d in distance)

    def accumulate(total: Array, prepared: tuple[Array, Array, tuple[Array, ...]]) -> Array:
        rows, first, weights = prepared
        for v in range(together):
            terms = [weights[k][v][..., None] * _take(rows, first[v] + k) for k in range(taps)]
            total = total + sum(terms[1:], terms[0])
        return total

    total = jnp.zeros((row.shape[0], width, selected.shape[2]), dtype)
    return _pipelined(prepare, accumulate, _varying(total, selected), steps, look_up=find_cell)


def _pipelined(
    prepare: Callable[..., Any],
    accumulate: Callable[[Array, Any], Array],
    total: Array,
    steps: int,
    look_up: Callable[[Array], Any] | None = None,
) -> Array:
    """total ← accumulate(total, prepare(step)) for every step, each step's preparation made one step ahead and carried.

    With `look_up` the preparation has two stages, prepare(step, look_up(step)), the first of them made two steps ahead.
    """
    zero = jnp.zeros((), jnp.int32)
    stage = look_up or (lambda step: ())

    def prepared(step: Array, found: Any) -> Any:
        return prepare(step, found) if look_up else prepare(step)

    def body(carry: tuple[Array, Any, Any], step: Array) -> tuple[tuple[Array, Any, Any], None]:
        total, ready, found = carry
        following, later = jnp.minimum(step + 1, steps - 1), jnp.minimum(step + 2, steps - 1)
        return (accumulate(total, ready), prepared(following, found), stage(later)), None

    start = (total, prepared(zero, stage(zero)), stage(jnp.minimum(zero + 1, steps - 1)))
    return lax.scan(body, start, jnp.arange(steps, dtype=jnp.int32))[0][0]


def _varying(array: Array, *data: Array) -> Array:
    """`array`, marked as differing between the devices of a `shard_map` where the data does; elsewhere, itself."""
    axes = frozenset().union(*(jax.typeof(a).mat.varying for a in data)) - jax.typeof(array).mat.varying
    return lax.pcast(array, tuple(sorted(axes)), to="varying") if axes else array


def _take(rows: Array, index: Int[Array, "..."]) -> Array:
    """rows[index] for indices known to be in range."""
    return rows.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _take_or_zero(rows: Array, index: Int[AnyArray, "..."]) -> Array:
    """rows[index], and zeros where the index is one past the last row."""
    return rows.at[index].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def _take_slices(table: Array, index: Int[Array, "..."]) -> Array:
    """table[index] as one gather of whole contiguous rows."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(index.ndim,), collapsed_slice_dims=(0,), start_index_map=(0,))
    return lax.gather(
        table, index[..., None], numbers, (1, table.shape[1]), mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )


def _linear_pair(
    name: str, implementations: tuple[Callable[..., Array], Callable[..., Array]]
) -> tuple[Primitive, Primitive]:
    """Two primitives, linear in their first argument and each other's transpose; a batch folds into the slices.

    (`custom_vjp` knows no forward mode and `custom_vmap` no reverse mode; a primitive has both.)
    """
    pair = Primitive(name), Primitive(f"{name}_transpose")
    for primitive, transpose, implementation in zip(pair, pair[::-1], implementations, strict=True):
        primitive.def_impl(partial(_evaluate, implementation))
        primitive.def_abstract_eval(partial(_shape, implementation))
        mlir.register_lowering(primitive, mlir.lower_fun(implementation, multiple_results=False))
        ad.primitive_jvps[primitive] = partial(_derivative, primitive)
        ad.primitive_transposes[primitive] = partial(_transpose, transpose)
        batching.primitive_batchers[primitive] = partial(_fold, primitive)
    return pair


@partial(jax.jit, static_argnames=("implementation", "system"))
def _jitted(implementation: Callable[..., Array], operand: Any, leaves: list[Any], system: Any) -> Array:
    return implementation(operand, *leaves, system=system)


def _evaluate(implementation: Callable[..., Array], operand: Any, *leaves: Any, system: Any) -> Array:
    return _jitted(implementation, operand, list(leaves), system)


def _shape(implementation: Callable[..., Array], operand: Any, *leaves: Any, system: Any) -> Any:
    structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (operand, *leaves)]
    out = jax.eval_shape(partial(implementation, system=system), *structs)
    return operand.update(shape=out.shape, dtype=out.dtype)


def _derivative(primitive: Primitive, primals: Any, tangents: Any, *, system: Any) -> Any:
    operand, *leaves = primals
    out = primitive.bind(operand, *leaves, system=system)
    tangent = tangents[0]
    if isinstance(tangent, ad.Zero):
        return out, ad.Zero(jax.typeof(out).to_tangent_aval())
    return out, primitive.bind(tangent, *leaves, system=system)


def _transpose(transpose: Primitive, cotangent: Any, operand: Any, *leaves: Array, system: Any) -> Any:
    if isinstance(cotangent, ad.Zero):
        return (ad.Zero(operand.aval), *(None for _ in leaves))
    return (transpose.bind(cotangent, *leaves, system=system), *(None for _ in leaves))


def _fold(primitive: Primitive, arguments: Any, axes: Any, *, system: Any) -> Any:
    """A batch of images is a longer stack of slices; only a batch of systems needs a loop."""
    operand, *leaves = arguments
    if any(axis is not None for axis in axes[1:]):
        return _loop(primitive, arguments, axes, system)
    last = jnp.moveaxis(operand, axes[0], -1)
    size = last.shape[-1]
    out = primitive.bind(last.reshape(*last.shape[:2], -1), *leaves, system=system)
    return out.reshape(*out.shape[:2], -1, size), 3


def _loop(primitive: Primitive, arguments: Any, axes: Any, system: Any) -> Any:
    batched = [jnp.moveaxis(a, axis, 0) for a, axis in zip(arguments, axes, strict=True) if axis is not None]

    def one(members: list[Array]) -> Array:
        rest = iter(members)
        return primitive.bind(
            *(next(rest) if axis is not None else a for a, axis in zip(arguments, axes, strict=True)), system=system
        )

    return lax.map(one, batched), 0


_project_p, _backproject_p = _linear_pair("pet_project", (_project, _backproject))
