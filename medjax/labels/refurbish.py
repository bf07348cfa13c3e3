"""Label refurbishment: suspect labels replaced by the network's predictions; their Dice with the truth.

    teacher = predict_proba(model, state.ema_params, images)        or with test-time augmentation
    refurbished = refurbish(labels, flags, teacher, mode="replace")
    label_dice(refurbished.labels.argmax(-1), clean, flags, corrupted)    where the truth is known

Only flagged images change, in a copy of the labels. Guards leave a label alone where the teacher would wipe
out most of a structure.

Source: replacing pixels where the network is sure as in ADELE, Liu et al., CVPR 2022; blending as in Reed et al., 2015.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from scipy import ndimage, optimize

from medjax.errors import ConfigError
from medjax.iterate import static_partial
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Model, Network, finest_logits

MODES = ("replace", "blend", "mask", "pixel")


class RefurbishedLabels(NamedTuple):
    """Refurbished soft labels, the weight of each image in the loss, and which labels have changed."""

    labels: Float[np.ndarray, "image *space class"]
    weight: Float[np.ndarray, " image"]
    changed: Bool[np.ndarray, " image"]  # whether a label has changed


def predict_proba(
    model: Network,
    params: PyTree,
    images: Float[Array | np.ndarray, "image *space channel"],
    batch: int = 32,
) -> Float[np.ndarray, "image *space class"]:
    """Softmax probability of every class in each voxel, in batches of `batch` images."""
    parts = [_softmax(model, params, jnp.asarray(images[k : k + batch])) for k in range(0, len(images), batch)]
    return np.concatenate([np.asarray(part) for part in parts])


@partial(jax.jit, static_argnums=0)
def _softmax(model: Network, params: PyTree, images: Array) -> Array:
    return jax.nn.softmax(finest_logits(model, params, images))


def mean_parameters(checkpoints: Sequence[PyTree]) -> PyTree:
    """Mean of the parameters of several checkpoints (weight averaging)."""
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *checkpoints)


Variant = tuple[Callable[[Array], Array], Callable[[Array], Array]]


def with_test_time_augmentation(model: Network, variants: Sequence[Variant]) -> Model:
    """Model with test-time augmentation: log of the mean probability over variants of the images.

    A variant is a pair of functions (transform, inverse): of the images, and of the probabilities; mirroring is one.
    """
    return Model(model.init, static_partial(_mean_log_probability, model, tuple(variants)))


def _mean_log_probability(
    model: Network, variants: Sequence[Variant], params: PyTree, images: Array, key: Array | None = None
) -> Array:
    each = [
        inverse(jax.nn.softmax(finest_logits(model, params, transform(images), key))) for transform, inverse in variants
    ]
    return jnp.log(jnp.maximum(sum(each) / len(each), 1e-12))


def refurbish(
    labels: Int[np.ndarray, "image *space"],
    flags: Bool[np.ndarray, " image"],
    teacher: Float[np.ndarray, "image *space class"],
    mode: str = "replace",
    *,
    blend: float = 0.7,
    min_probability: float = 0.8,
    min_size_fraction: float = 0.3,
    max_changed_fraction: float = 1.0,
    largest_component: bool = True,
) -> RefurbishedLabels:
    """Refurbished labels: those of flagged images changed by a teacher network's predictions.

    Args:
        teacher: probability, by the teacher network, of every class.
        mode: "replace", by the teacher's prediction; "blend", (1 − b) · label + b · teacher, b = `blend`; "pixel", only
            where the teacher's probability is above `min_probability`; "mask", no change, but weight 0 in the loss.
        min_size_fraction: an image of which a structure would shrink below this fraction keeps its label.
        max_changed_fraction: maximum fraction of the data set that is changed; what disagrees most is changed first.
        largest_component: keep only the largest connected component of each of the teacher's structures, except in
            blends; the other voxels get their next likely class.

    Raises:
        ConfigError: no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"refurbish: mode '{mode}'; expected one of {', '.join(MODES)}")
    classes = teacher.shape[-1]
    soft = np.eye(classes, dtype=np.float32)[labels]
    weight, changed = np.ones(len(labels), np.float32), np.zeros(len(labels), bool)
    if mode == "mask":
        return RefurbishedLabels(soft, np.where(flags, 0, weight).astype(np.float32), changed)
    new = {int(k): _largest(teacher[k]) if largest_component else teacher[k].argmax(-1) for k in np.flatnonzero(flags)}
    allowed = [k for k, prediction in new.items() if _keeps_structures(labels[k], prediction, min_size_fraction)]
    apart = sorted(allowed, key=lambda k: mean_dice(new[k], labels[k]))
    for k in apart[: round(max_changed_fraction * len(labels))]:
        prediction = np.eye(classes, dtype=np.float32)[new[k]]
        if mode == "replace":
            soft[k] = prediction
        elif mode == "blend":
            soft[k] = (1 - blend) * soft[k] + blend * teacher[k]
        else:
            sure = (teacher[k].max(-1) > min_probability) & (teacher[k].argmax(-1) != labels[k])
            soft[k][sure] = prediction[sure]
        changed[k] = bool((soft[k].argmax(-1) != labels[k]).any()) or mode == "blend"
    return RefurbishedLabels(soft, weight, changed)


def label_dice(
    labels: Int[np.ndarray, "image *space"],
    clean: Int[np.ndarray, "image *space"],
    flags: Bool[np.ndarray, " image"],
    corrupted: Bool[np.ndarray, " image"],
) -> dict[str, float]:
    """Mean Dice of labels with the truth: of all, flagged, corrupted and falsely flagged images (NaN: none)."""
    each = np.array([mean_dice(one, true) for one, true in zip(labels, clean, strict=True)])
    groups = {"all": np.ones(len(each), bool), "flagged": flags, "corrupted": corrupted}
    groups["falsely_flagged"] = flags & ~corrupted
    return {name: float(each[chosen].mean()) if chosen.any() else float("nan") for name, chosen in groups.items()}


def end_of_early_learning(agreement: Sequence[float] | np.ndarray, change: float = 0.9) -> bool:
    """Whether early learning has ended and memorization of the labels sets in: the moment to judge them.

    `agreement` is the overlap with the labels after the probes t = 1, 2, …; f = a (1 − exp(−b t^c)) is fitted to it.
    Early learning has ended when f′(t) < (1 − `change`) max f′ at the last t, the maximum over the probes.

    Source: ADELE, Liu et al., CVPR 2022, who compare with the first slope; a slow start has its steepest part later.
    """
    values = np.asarray(agreement, float)
    t = np.arange(1, len(values) + 1, dtype=float)
    if len(t) < 3:
        return False

    def residual(p: np.ndarray) -> np.ndarray:
        return p[0] * (1 - np.exp(-p[1] * t ** p[2])) - values

    a, b, c = optimize.least_squares(residual, (values.max(), 1.0, 1.0), bounds=([0, 1e-3, 0.1], [2, 20, 4])).x

    slopes = a * b * c * t ** (c - 1) * np.exp(-b * t**c)
    return bool(slopes[-1] < (1 - change) * slopes.max())


def _keeps_structures(label: np.ndarray, prediction: np.ndarray, min_fraction: float) -> bool:
    return all((prediction == c).sum() >= min_fraction * (label == c).sum() for c in np.unique(label) if c > 0)


def _largest(teacher: np.ndarray) -> np.ndarray:
    """Predicted classes, with the smaller components of each structure replaced by the next likely class."""
    label, rest = teacher.argmax(-1), teacher.copy()
    for c in np.unique(label):
        if c > 0:
            parts, _ = ndimage.label(label == c)
            sizes = np.bincount(parts.ravel())[1:]
            rest[(parts > 0) & (parts != 1 + int(sizes.argmax())), c] = -1
    return rest.argmax(-1)
