"""`medjax register` as a function: affine and deformable registration of two images, and the files of its transforms.

result = register_images(Path("fixed.nii.gz"), Path("moving.nii.gz"), Path("warped.nii.gz"), field=Path("field.nii.gz"))
result = register_images(fixed, moving)                    medjax.io.nifti.Volume
result.chain                                               (FieldTransform, AffineTransform), first to last
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import defaults
from medjax.atomic import replacing_together
from medjax.errors import ConfigError, DataError
from medjax.interpolation import in_field_of_view
from medjax.io.itk_transforms import AFFINE_SUFFIXES
from medjax.io.nifti import SUFFIXES, Volume, write_nifti
from medjax.metrics.overlap import mean_dice
from medjax.registration import similarity as similarities
from medjax.registration.affine_registration import register_affine
from medjax.registration.greedy import register
from medjax.registration.transform_files import write_transform
from medjax.registration.transforms import (
    AffineTransform,
    Chain,
    FieldTransform,
    compose_chain,
    from_displacement,
    invert_chain,
    moving_voxels,
    resample,
    to_displacement,
)
from medjax.registration.warp import jacobian_determinant
from medjax.running.progress import say
from medjax.tools.checks import MAX_STEPS, as_paths, check_choice, check_no_overwrite, check_output, parse_integers
from medjax.tools.register_inputs import ImageFile, Pair, read_labels, read_mask, read_pair

KINDS = ("deformable", "affine", "rigid")
SIMILARITIES: dict[str, Callable[[], Any]] = {
    "lncc": similarities.lncc,
    "mse": lambda: similarities.mean_squares,
    "mi": similarities.mutual_information,
    "mind": similarities.mind,
}
AFFINE_ITERATIONS = (100, 60, 40)  # of the affine before a field
MIN_SIDE = 8  # voxels a side of the coarsest level of an affine: with fewer, an image fits others in several poses
MAX_LEVELS = 8  # the coarsest has a voxel of 128
RIM = 2  # voxels at the edges that measures of the field leave out


class Registration(NamedTuple):
    """Registered images and what was measured of them."""

    warped: Volume  # moving image on the fixed grid
    chain: Chain  # from the fixed image's space to the moving one's: field, if any, then affine
    field: FieldTransform  # the whole map on the fixed grid
    inverse: FieldTransform  # its inverse on the moving grid
    folds: float  # fraction of voxels whose Jacobian determinant is not positive
    sd_log_jacobian: float  # of the voxels that do not fold
    dice: tuple[float, float] | None  # mean Dice of the labels before and after
    seconds: float  # of the registration, compilation included


def register_images(
    fixed: ImageFile,
    moving: ImageFile,
    output: Path | str | None = None,
    *,
    field: Path | str | None = None,
    affine: Path | str | None = None,
    inverse_field: Path | str | None = None,
    figure: Path | str | None = None,
    kind: str = defaults.REGISTER_KIND,
    similarity: str | None = None,
    iterations: str = defaults.REGISTER_ITERATIONS,
    mask: ImageFile | None = None,
    fixed_labels: ImageFile | None = None,
    moving_labels: ImageFile | None = None,
    network: Path | str | None = None,
) -> Registration:
    """Register a moving image to a fixed one: affinely, by the positions in their headers, and then deformably.

    Args:
        fixed: image whose grid the result is on, as NIfTI; of one slice it is 2-D.
        moving: image to warp; its orientation and voxel size may be others.
        output: warped image to write, NIfTI; None writes nothing.
        field: displacement field of the whole map to write, as SimpleITK and ANTs read it.
        affine: affine part to write, ITK's .txt, .tfm or .mat.
        inverse_field: displacement field of the inverse map to write, on the moving grid.
        figure: PNG to write.
        kind: deformable (affine, then a field), affine or rigid.
        similarity: lncc, mse, mi or mind; default: lncc for the field, mi for the affine.
        iterations: numbers for the levels of the last stage, coarse to fine, such as "100,60,50".
        mask: voxels of the fixed image that count.
        fixed_labels, moving_labels: labels on either grid, for the Dice before and after.
        network: file of a registration network; it gives the start of the field, which `iterations` of the finest level
            refine.

    Raises:
        ConfigError, DataError: an option or an input cannot be used, or an output would replace an input.
    """
    paths = as_paths(fixed, moving, output, field, affine, inverse_field, figure, mask, fixed_labels, moving_labels)
    fixed, moving, output, field, affine, inverse_field, figure, mask, fixed_labels, moving_labels = paths
    outputs = {"output": output, "field": field, "affine": affine, "inverse_field": inverse_field, "figure": figure}
    _check_outputs(outputs, (fixed, moving, mask, fixed_labels, moving_labels, as_paths(network)[0]))
    check_choice("--kind", kind, KINDS)
    if similarity is not None:
        check_choice("--similarity", similarity, tuple(SIMILARITIES))
    if network is not None and kind != "deformable":
        raise ConfigError(f"--network with --kind {kind}; expected deformable: it gives the start of the field")
    levels = _parse_iterations(iterations)
    if (fixed_labels is None) != (moving_labels is None):
        raise ConfigError("one of --fixed-labels and --moving-labels; expected both or none")
    images = read_pair(fixed, moving)
    weights = read_mask(mask, images, fixed)
    labels = read_labels(images, fixed, moving, fixed_labels, moving_labels)
    say(f"registering to {' × '.join(map(str, images.fixed.shape))} voxels, {kind}")
    begin = time.perf_counter()
    chain, inverse = _register(images, kind, similarity, levels, weights, as_paths(network)[0])
    seconds = time.perf_counter() - begin
    result = _measure(images, chain, inverse, labels, seconds)
    _write(result, images, outputs)
    return result


def _register(
    images: Pair, kind: str, name: str | None, levels: tuple[int, ...], mask: np.ndarray | None, network: Path | None
) -> tuple[Chain, Chain]:
    """Chain of the fixed to the moving space, and its inverse."""
    fixed, moving = (jnp.asarray(_scale(one)) for one in (images.fixed, images.moving))
    weights = None if mask is None else jnp.asarray(mask, jnp.float32)
    options: dict[str, Any] = {"kind": "rigid" if kind == "rigid" else "affine", "mask": weights}
    if name is not None:
        options["similarity"] = SIMILARITIES[name]()
    steps = AFFINE_ITERATIONS if kind == "deformable" else levels
    side = float(np.prod(fixed.shape)) ** (1 / fixed.ndim)
    steps = steps[max(0, len(steps) - 1 - int(np.log2(max(side / MIN_SIDE, 1)))) :]
    options |= {"iterations": steps, "factors": _factors(steps)}
    matrix = register_affine(fixed, images.fixed_grid, moving, images.moving_grid, **options)
    chain: Chain = (AffineTransform(np.asarray(matrix, float)),)
    back = invert_chain(chain)
    if kind != "deformable":
        return chain, back
    near = resample(moving, images.moving_grid, images.fixed_grid, chain, outside=None)
    inside = in_field_of_view(moving_voxels(chain, images.fixed_grid, images.moving_grid), images.moving_grid.shape)
    if not bool(inside.all()):
        weights = inside.astype(jnp.float32) * (1.0 if weights is None else weights)
    settings: dict[str, Any] = {"iterations": levels, "factors": _factors(levels), "mask": weights}
    if network is not None:
        settings |= {"iterations": levels[-1:], "factors": (1,), "start": _predict(network, fixed, near)}
    deformation = register(fixed, near, similarity=SIMILARITIES[name or "lncc"](), **settings)
    there, inverse = (from_displacement(one, images.fixed_grid) for one in deformation)
    return (there, *chain), (*back, inverse)


def _predict(file: Path, fixed: Array, moving: Array) -> Array:
    from medjax.registration.network import predict
    from medjax.registration.network_file import load

    network = load(file)
    if network.settings.axes != fixed.ndim:
        raise DataError(f"{file}: a network of {network.settings.axes}-D images; expected {fixed.ndim}-D, as these are")
    run = jax.jit(partial(predict, network.model, multiple=network.settings.multiple))
    return run(network.params, fixed, moving).displacement


def _scale(image: np.ndarray) -> np.ndarray:
    """Image with its 0.5th percentile at 0 and its 99.5th at 1, so that a difference of two has a meaning."""
    low, high = np.percentile(image, [0.5, 99.5])
    if high <= low:
        low, high = image.min(), image.max()
    return ((image - low) / (high - low)).astype(np.float32)


def _factors(levels: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(2**k for k in reversed(range(len(levels))))


def _measure(
    images: Pair, chain: Chain, inverse: Chain, labels: tuple[np.ndarray, np.ndarray] | None, seconds: float
) -> Registration:
    field = compose_chain(chain, images.fixed_grid)
    back = compose_chain(inverse, images.moving_grid)
    warped = np.asarray(resample(images.moving, images.moving_grid, images.fixed_grid, (field,)))
    determinant = np.asarray(jacobian_determinant(to_displacement(chain, images.fixed_grid, images.fixed_grid)))
    inner = determinant[tuple(slice(RIM, -RIM) if side > 2 * RIM + 1 else slice(None) for side in determinant.shape)]
    positive = inner[inner > 0]
    dice = None
    if labels is not None:
        fixed, moving = labels
        scores = [
            mean_dice(fixed, np.asarray(resample(moving, images.moving_grid, images.fixed_grid, one, order="nearest")))
            for one in ((), chain)
        ]
        dice = (scores[0], scores[1])
    volume = Volume(warped.reshape(images.fixed_volume.array.shape), images.fixed_volume.affine)
    spread = float(np.log(positive).std()) if positive.size else float("nan")
    return Registration(volume, chain, field, back, float((inner <= 0).mean()), spread, dice, seconds)


def _write(result: Registration, images: Pair, outputs: dict[str, Path | None]) -> None:
    names = [name for name, path in outputs.items() if path is not None]
    paths = [path for path in outputs.values() if path is not None]
    with replacing_together(*paths) as parts:
        at = dict(zip(names, parts, strict=True))
        if "output" in at:
            write_nifti(at["output"], result.warped.array, result.warped.affine)
        if "field" in at:
            write_transform(at["field"], result.field)
        if "inverse_field" in at:
            write_transform(at["inverse_field"], result.inverse)
        if "affine" in at:
            write_transform(at["affine"], result.chain[-1])
        if "figure" in at:
            _draw(at["figure"], result, images)


def _draw(path: Path, result: Registration, images: Pair) -> None:
    from medjax.registration.grid import apply_matrix
    from medjax.registration.warp import identity
    from medjax.report.checkerboard import checkerboard
    from medjax.report.figures import write_png

    shape, size = images.fixed_volume.array.shape, len(images.fixed_grid.shape)
    before = np.asarray(resample(images.moving, images.moving_grid, images.fixed_grid)).reshape(shape)
    start = apply_matrix(images.fixed_grid.affine, identity(images.fixed_grid.shape))
    positions = np.asarray(start + result.field.displacement_mm).reshape(size, *shape)
    positions = np.concatenate([positions, np.zeros((3 - size, *shape), np.float32)])
    volume = images.fixed_volume
    write_png(path, checkerboard(volume.array, before, result.warped.array, positions, volume.affine))


def _check_outputs(outputs: dict[str, Path | None], inputs: tuple[Any, ...]) -> None:
    endings = {"figure": (".png",), "affine": AFFINE_SUFFIXES}
    for name, path in outputs.items():
        if path is not None:
            check_output(path, endings.get(name, SUFFIXES))
    check_no_overwrite([path for path in outputs.values() if path is not None], inputs)


def _are_levels(numbers: list[int]) -> bool:
    return len(numbers) <= MAX_LEVELS and 0 < max(numbers) <= MAX_STEPS


def _parse_iterations(text: str) -> tuple[int, ...]:
    found = parse_integers("--iterations", text, "whole numbers, one a level, such as 100,60,50", _are_levels)
    return tuple(found or ())
