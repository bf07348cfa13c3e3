"""Image quality: NRMSE, PSNR, SSIM; contrast recovery of lesions; bias and standard deviation over noise realisations.

All take JAX or NumPy images of any rank, and jit and vmap. A mask is boolean and of the image's shape. Empty masks
and constant references are refused where values are known; under jit or vmap they give NaN or infinity.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real, Scalar

from medjax.errors import DataError

AnyArray = Array | np.ndarray


def nrmse(
    image: Real[AnyArray, "*space"],
    reference: Real[AnyArray, "*space"],
    mask: Bool[AnyArray, "*space"] | None = None,
) -> Scalar:
    """Normalised root-mean-square error ‖image − reference‖ / ‖reference‖ inside the mask.

    Raises:
        DataError: shapes differ, the mask is empty, or the reference is 0 everywhere inside it.
    """
    image, reference = _same_shape(image, reference)
    error, norm = _nrmse(image, reference, _checked_mask(image, mask))
    if _is_known(norm) and not np.asarray(norm) > 0:
        raise DataError("reference: 0 everywhere inside the mask; NRMSE divides by its norm")
    return error


@partial(jax.jit, inline=True)
def _nrmse(image: Array, reference: Array, mask: Array | None) -> tuple[Array, Array]:
    """NRMSE, and the squared norm of the reference."""
    norm = jnp.sum(reference**2, where=mask)
    return jnp.sqrt(jnp.sum((image - reference) ** 2, where=mask) / norm), norm


def psnr(
    image: Real[AnyArray, "*space"],
    reference: Real[AnyArray, "*space"],
    mask: Bool[AnyArray, "*space"] | None = None,
) -> Scalar:
    """Peak signal-to-noise ratio in dB, 10 log10(range² / mean squared error); the error is inside the mask.

    The range is max − min of the whole reference. Equal images give infinity.

    Raises:
        DataError: shapes differ, the mask is empty, or the reference is constant.
    """
    image, reference = _same_shape(image, reference)
    return _psnr(image, reference, _checked_mask(image, mask), _range(reference))


@partial(jax.jit, inline=True)
def _psnr(image: Array, reference: Array, mask: Array | None, span: Array) -> Array:
    return 20 * jnp.log10(span) - 10 * jnp.log10(jnp.mean((image - reference) ** 2, where=mask))


def ssim(
    image: Real[AnyArray, "*space"],
    reference: Real[AnyArray, "*space"],
    mask: Bool[AnyArray, "*space"] | None = None,
    *,
    window: int = 7,
    gaussian_weights: bool = False,
    sigma: float = 1.5,
    use_sample_covariance: bool = True,
) -> Scalar:
    """Mean structural similarity (SSIM): the value of `skimage.metrics.structural_similarity` for the same arguments.

    With local means μ, variances σ² and covariance σxy over a window, C1 = (0.01 R)², C2 = (0.03 R)² and R = max − min
    of the reference: SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)). The mean is over the mask;
    without one, as in scikit-image, over all but a border of half a window. The paper's SSIM has
    `gaussian_weights=True, use_sample_covariance=False`.

    Args:
        image: image to judge.
        reference: image of perfect quality.
        mask: voxels of the mean.
        window: width of the uniform window in voxels, odd.
        gaussian_weights: whether the window is a Gaussian, cut at 3.5 σ, instead.
        sigma: standard deviation σ of the Gaussian window in voxels.
        use_sample_covariance: whether variances are divided by n − 1 instead of n.

    Raises:
        DataError: shapes differ, the mask is empty, the reference is constant, or a side is shorter than the window.

    Source: Wang, Bovik, Sheikh & Simoncelli, IEEE Transactions on Image Processing 13(4), 2004.
    """
    image, reference = _same_shape(image, reference)
    weights = _gaussian_window(sigma) if gaussian_weights else np.full(window, 1 / window)
    if len(weights) % 2 == 0 or min(image.shape) < len(weights):
        raise DataError(
            f"window: {len(weights)} voxels, the image has {image.shape}; expected odd and within every side"
        )
    inside = _interior(image.shape, len(weights) // 2) if mask is None else _checked_mask(image, mask)
    return _mean_ssim(image, reference, _range(reference), inside, tuple(weights.tolist()), use_sample_covariance)


@partial(jax.jit, static_argnames=("weights", "use_sample_covariance"), inline=True)
def _mean_ssim(
    image: Array, reference: Array, span: Array, inside: Array, weights: tuple[float, ...], use_sample_covariance: bool
) -> Array:
    return jnp.mean(_ssim_map(image, reference, span, np.array(weights), use_sample_covariance), where=inside)


def contrast_recovery(
    image: Real[AnyArray, "*space"],
    truth: Real[AnyArray, "*space"],
    lesion: Bool[AnyArray, "*space"],
    background: Bool[AnyArray, "*space"],
) -> Scalar:
    """Contrast recovery coefficient (ā/b̄ − 1) / (a/b − 1) of a lesion's mean ā to its background's b̄; 1 is perfect.

    Raises:
        DataError: shapes differ, a mask is empty, or the truth has no contrast there.

    Source: CRC of Singh et al., MELBA 2024:001.
    """
    image, truth = _same_shape(image, truth, "truth")
    masks = _checked_mask(image, lesion, "lesion"), _checked_mask(image, background, "background")
    recovery, contrast = _contrast_recovery(image, truth, *masks)
    if _is_known(contrast) and not (np.isfinite(contrast) and np.asarray(contrast) != 0):
        raise DataError("truth: the same mean in lesion and background, or a background of 0; expected a contrast")
    return recovery


@partial(jax.jit, inline=True)
def _contrast_recovery(image: Array, truth: Array, lesion: Array, background: Array) -> tuple[Array, Array]:
    """Contrast recovery, and the true contrast."""
    contrast = _contrast(truth, lesion, background)
    return _contrast(image, lesion, background) / contrast, contrast


class BiasAndDeviation(NamedTuple):
    """Bias and standard deviation of a reconstruction over noise realisations: images, and one number of each."""

    bias: Float[Array, "*space"]  # mean over realisations − truth, in the units of the image
    standard_deviation: Float[Array, "*space"]  # over realisations, with n − 1
    normalized_bias: Scalar  # √(Σ bias² / Σ truth²) over the mask
    normalized_deviation: Scalar  # mean over the background of standard deviation / mean


def bias_and_standard_deviation(
    realizations: Real[AnyArray, "realisation *space"],
    truth: Real[AnyArray, "*space"],
    mask: Bool[AnyArray, "*space"] | None = None,
    background: Bool[AnyArray, "*space"] | None = None,
) -> BiasAndDeviation:
    """Bias and deviation images of reconstructions of independent noise realisations, and one number of each.

    With m and s the mean and the standard deviation (n − 1) over realisations: bias = m − truth, summed up over the
    mask as √(Σ bias² / Σ truth²); deviation s, summed up over the background as the mean of s / m (0 where m = 0).
    Without a background the mask takes its place, without a mask everything does.

    Raises:
        DataError: fewer than two realisations, shapes differ, a mask is empty, or the truth is 0 everywhere inside it.

    Source: the deviation is the STD of Singh et al., MELBA 2024:001.
    """
    realizations = _floating(realizations)
    if realizations.ndim == 0 or realizations.shape[0] < 2:
        raise DataError(f"realisations: shape {realizations.shape}; expected two or more along the first axis")
    mean, deviation, relative = _over_realizations(realizations)
    mean, truth = _same_shape(mean, truth, "truth")
    mask = _checked_mask(mean, mask)
    background = mask if background is None else _checked_mask(mean, background, "background")
    return BiasAndDeviation(mean - truth, deviation, nrmse(mean, truth, mask), jnp.mean(relative, where=background))


@partial(jax.jit, inline=True)
def _over_realizations(realizations: Array) -> tuple[Array, Array, Array]:
    """Mean, standard deviation, and their ratio where the mean is above 0."""
    mean, deviation = jnp.mean(realizations, axis=0), jnp.std(realizations, axis=0, ddof=1)
    return mean, deviation, jnp.where(mean > 0, deviation / jnp.where(mean > 0, mean, 1.0), 0.0)


def roughness(image: Real[AnyArray, "*space"], axis: int, mask: Bool[AnyArray, "*space"] | None = None) -> Scalar:
    """Roughness along an axis: √(mean squared second difference) / √(mean of image²), inside the mask.

    In a stack of independent slices it is larger across them than within them.

    Raises:
        DataError: the mask has another shape or is empty, or fewer than three voxels lie along the axis.
    """
    image = _floating(image)
    mask = _checked_mask(image, mask)
    if image.shape[axis] < 3:
        raise DataError(f"image: {image.shape[axis]} voxels along axis {axis}; expected 3 or more")
    return _roughness(image, axis, mask)


@partial(jax.jit, static_argnames="axis", inline=True)
def _roughness(image: Array, axis: int, mask: Array | None) -> Array:
    inside = None if mask is None else jax.lax.slice_in_dim(mask, 1, image.shape[axis] - 1, axis=axis)
    bend = jnp.mean(jnp.diff(image, 2, axis) ** 2, where=inside)
    return jnp.sqrt(bend / jnp.mean(image**2, where=mask))


def _same_shape(image: AnyArray, reference: AnyArray, name: str = "reference") -> tuple[Array, Array]:
    if image.shape != reference.shape:
        raise DataError(f"image: shape {image.shape}; the {name} has {reference.shape}")
    return _floating(image), _floating(reference)


def _floating(values: AnyArray) -> Array:
    """As JAX array; integers, whose squares overflow, become floating point."""
    return jnp.asarray(values, jnp.result_type(values, float))


def _checked_mask(image: Array, mask: AnyArray | None, name: str = "mask") -> Array | None:
    """The mask, None if everything counts; checks its shape always and its values where they are known."""
    if mask is None:
        return None
    if mask.shape != image.shape:
        raise DataError(f"{name}: shape {mask.shape}; the image has {image.shape}")
    if _is_known(mask) and not np.asarray(mask).any():
        raise DataError(f"{name}: empty; expected at least one voxel inside it")
    return jnp.asarray(mask, bool)


def _is_known(values: AnyArray) -> bool:
    """Whether the values exist already: not while jit or vmap trace them."""
    return not isinstance(values, jax.core.Tracer)


def _range(reference: Array) -> Scalar:
    span = _span(reference)
    if _is_known(span) and not np.asarray(span) > 0:
        raise DataError(f"reference: constant at {float(reference.min()):g}; expected a range of values")
    return span


@partial(jax.jit, inline=True)
def _span(values: Array) -> Array:
    return values.max() - values.min()


def _contrast(image: Array, lesion: Array, background: Array) -> Scalar:
    return jnp.mean(image, where=lesion) / jnp.mean(image, where=background) - 1


def _ssim_map(image: Array, reference: Array, span: Array, weights: np.ndarray, use_sample_covariance: bool) -> Array:
    """SSIM at every voxel; edges are mirrored."""
    voxels = len(weights) ** image.ndim
    unbiased = voxels / (voxels - 1) if use_sample_covariance else 1.0
    shift = jnp.mean(reference)  # (co)variances do not feel it, and near 0 they lose fewer digits of float32
    x, y = image - shift, reference - shift
    mean_x, mean_y = _smooth(x, weights), _smooth(y, weights)
    variances = unbiased * (_smooth(x * x + y * y, weights) - mean_x**2 - mean_y**2)
    covariance = unbiased * (_smooth(x * y, weights) - mean_x * mean_y)
    mean_x, mean_y = mean_x + shift, mean_y + shift
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _smooth(image: Array, weights: np.ndarray) -> Array:
    """Weighted mean over a window along every axis, edges mirrored (the edge voxel repeated)."""
    half = len(weights) // 2
    for axis, side in enumerate(image.shape):
        mirrored = np.pad(np.eye(side), ((half, half), (0, 0)), mode="symmetric")
        matrix = sum(weight * mirrored[start : start + side] for start, weight in enumerate(weights))
        image = jnp.tensordot(jnp.asarray(matrix, image.dtype), image, axes=(1, axis), precision="highest")
        image = jnp.moveaxis(image, 0, axis)
    return image


def _gaussian_window(sigma: float) -> np.ndarray:
    """Normalised Gaussian weights out to 3.5 σ."""
    half = int(3.5 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    return weights / weights.sum()


def _interior(shape: tuple[int, ...], border: int) -> Array:
    inside = np.zeros(shape, bool)
    inside[tuple(slice(border, side - border) for side in shape)] = True
    return jnp.asarray(inside)
