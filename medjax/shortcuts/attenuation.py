"""Test-time attenuation: a classifier's last feature map weighted by where an audit sees the shortcut.

    m = pool_to_grid(rcs_map, z.shape[1:-1])            region contribution scores on the feature map's grid
    w = attenuation_weights(m, down=10, up=1)           1 − down·m' where m' ≥ 0, else 1 − up·m'; m' = m / max|m|
    logits = model.head(params, attenuate(z, w))        z·w·N / Σ w: the head's average is Σ z w / Σ w

Nothing is trained. `select_attenuation` takes down and up by worst-group accuracy on images set apart for that, and
`rolled_maps` moves the map elsewhere: a control that weights as strongly in the wrong place.

Source: Achara et al., OSCAR, arXiv 2512.18888, 2025, and its published code. There weights may be negative, so that
their sum can cross zero; here they are clamped at 0, unless `clamp` is False.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from medjax.errors import DataError
from medjax.models.model import Network, require

STRENGTHS = (1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)  # published values of down and of up
MAX_DROP = 0.005  # published tolerance of the adjusted accuracy, the mean of the groups' accuracies
EPSILON = 1e-8
Weights = Float[np.ndarray, "*grid"]


class Selection(NamedTuple):
    """Selected strengths of attenuation, and accuracies on the images they were selected on."""

    down: float  # 0: no attenuation
    up: float
    worst_group: float  # worst-group accuracy with it
    adjusted: float  # adjusted accuracy with it, the mean of the groups' accuracies
    worst_group_before: float
    adjusted_before: float


def pool_to_grid(values: Float[np.ndarray, "*space"], grid: Sequence[int]) -> Float[np.ndarray, "*grid"]:
    """Average of a map over the cells of a coarser grid; cell i of n covers voxels ⌊i L/n⌋ … ⌈(i+1) L/n⌉ of L.

    PyTorch's adaptive average pooling, in any number of axes. NaN, where there is no region, counts as 0.

    Raises:
        DataError: another number of axes, or a grid finer than the map.
    """
    if len(grid) != values.ndim or any(n > side or n < 1 for n, side in zip(grid, values.shape, strict=True)):
        raise DataError(f"grid {tuple(grid)} of a map of {values.shape}; expected as many axes, none finer")
    pooled = np.nan_to_num(np.asarray(values, float))
    for axis, n in enumerate(grid):
        side = pooled.shape[axis]
        cells = [pooled.take(range(i * side // n, -(-(i + 1) * side // n)), axis).mean(axis) for i in range(n)]
        pooled = np.stack(cells, axis)
    return pooled


def attenuation_weights(scores: Float[np.ndarray, "*grid"], down: float, up: float, clamp: bool = True) -> Weights:
    """Weights 1 − down·m where m ≥ 0 and 1 − up·m where m < 0, m = scores / max |scores|; 1 where all scores are 0.

    Args:
        scores: region contribution scores on the feature map's grid.
        down: attenuation of positive scores.
        up: gain of negative ones.
        clamp: weights below 0 become 0.

    Raises:
        DataError: scores that are not finite.
    """
    values = np.asarray(scores, float)
    if not np.isfinite(values).all():
        raise DataError(f"scores: {int((~np.isfinite(values)).sum())} are not finite; expected numbers")
    relative = values / (np.abs(values).max(initial=0) or 1.0)
    weights = 1 - np.where(relative >= 0, down, up) * relative
    return np.maximum(weights, 0.0) if clamp else weights


def attenuate(
    z: Float[Array | np.ndarray, "batch *grid channel"], weights: Float[Array | np.ndarray, "*grid"]
) -> Float[Array | np.ndarray, "batch *grid channel"]:
    """Feature map z·w·N / (Σ w + 1e-8) of N cells, whose plain average over space is the average weighted by w.

    Where all weights are 0 it is 0, and the head sees no features.
    """
    return z * (weights * (weights.size / (weights.sum() + EPSILON))).astype(z.dtype)[None, ..., None]


def rolled_maps(
    key: PRNGKeyArray, scores: Float[np.ndarray, "*grid"], number: int
) -> Float[np.ndarray, "{number} *grid"]:
    """Control: the same scores rolled to random other places, by half of the image along at least one axis.

    A roll is cyclic, so no voxel goes farther than half a side (⌊side / 2⌋ cells). The published code draws offsets
    from half a side to a whole one, of which the largest are small shifts the other way; these are left out here.
    """
    far = np.array(scores.shape) // 2
    offsets = np.indices(scores.shape).reshape(scores.ndim, -1).T
    distance = np.minimum(offsets, np.array(scores.shape) - offsets)
    offsets = offsets[((distance == far) & (far > 0)).any(1)]
    if not len(offsets):
        raise DataError(f"scores of {scores.shape}; expected two cells or more along an axis")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    chosen = rng.choice(len(offsets), number, replace=number > len(offsets))
    return np.stack([np.roll(scores, offsets[k], tuple(range(scores.ndim))) for k in chosen])


def attenuated_logits(
    model: Network, params: PyTree, z: Float[Array | np.ndarray, "image *grid channel"], weights: Sequence[Weights]
) -> Int[np.ndarray, "weights image"]:
    """Predicted class of each image, from features `z`, under each of the `weights`.

    Raises:
        ConfigError: the model has no `head`.
    """
    require(model, "head", "attenuation")
    return np.asarray(_predict(model, params, jnp.asarray(z), jnp.asarray(np.stack(weights), jnp.float32)))


def select_attenuation(
    predict: Callable[[Sequence[Weights]], Int[np.ndarray, "weights image"]],
    scores: Float[np.ndarray, "*grid"],
    label: Int[np.ndarray, " image"],
    group: Int[np.ndarray, " image"],
    strengths: Sequence[float] = STRENGTHS,
    max_drop: float = MAX_DROP,
    clamp: bool = True,
) -> Selection:
    """Strengths (down, up) with the highest worst-group accuracy, of those that keep the adjusted accuracy.

    Kept: it falls by no more than `max_drop`. No attenuation, (0, 0), is one of the choices. Of equally good ones the
    weakest is taken, so that images are changed no more than it helps (the published code averages them).

    Args:
        predict: weights → predicted class of each image under each, as `attenuated_logits`.
        scores: region contribution scores on the feature map's grid.
        label: class of each image.
        group: group of each image, of class and attribute.
        strengths: values of down and of up that are tried.
        max_drop: largest fall of the adjusted accuracy.
        clamp: as in `attenuation_weights`.

    Raises:
        DataError: there is no image, or labels and groups differ in number.
    """
    if not len(label) or len(label) != len(group):
        raise DataError(f"{len(label)} labels, {len(group)} groups; expected one of each for every image")
    pairs = [(0.0, 0.0), *sorted(((d, u) for d in strengths for u in strengths), key=lambda pair: (sum(pair), pair))]
    predicted = predict([attenuation_weights(scores, down, up, clamp) for down, up in pairs])
    accuracy = group_accuracy(predicted == label, group)
    worst, adjusted = accuracy.min(1), accuracy.mean(1)
    allowed = adjusted >= adjusted[0] - max_drop - 1e-12
    best = int(np.argmax(np.where(allowed, worst, -1)))  # the first of equal ones
    return Selection(*pairs[best], *(float(x) for x in (worst[best], adjusted[best], worst[0], adjusted[0])))


def group_accuracy(
    correct: Bool[np.ndarray, "*several image"], group: Int[np.ndarray, " image"]
) -> Float[np.ndarray, "*several group"]:
    """Accuracy in each group that is present, in the order of their numbers."""
    return np.stack([correct[..., group == one].mean(-1) for one in np.unique(group)], -1)


def _predictions(model: Network, params: PyTree, z: Array, weights: Array) -> Array:
    head = require(model, "head", "attenuation")
    return jax.lax.map(lambda w: jnp.argmax(head(params, attenuate(z, w)), axis=-1), weights)


_predict = jax.jit(_predictions, static_argnums=0)
