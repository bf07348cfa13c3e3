"""Repair of suspect labels with the network's own predictions, and what the repair did.

    teacher = predict_proba(model, state.ema_params, images)        or with test-time augmentation
    repaired = refurbish(labels, flags, teacher, mode="replace")
    quality(repaired.labels.argmax(-1), wrong.clean, flags, wrong.corrupted)    where the truth is known

Only flagged images change; the caller keeps the given labels. Guards leave a label alone where the teacher would wipe
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


class Repaired(NamedTuple):
    """Soft labels to train on, the weight of each image in the loss, and which labels have changed."""

    labels: Float[np.ndarray, "image *space class"]
    weight: Float[np.ndarray, " image"]
    changed: Bool[np.ndarray, " image"]


def predict_proba(
    model: Network,
    params: PyTree,
    images: Float[Array | np.ndarray, "image *space channel"],
    batch: int = 32,
) -> Float[np.ndarray, "image *space class"]:
    """The network's probability of every class in each voxel."""
    parts = [_softmax(model, params, jnp.asarray(images[k : k + batch])) for k in range(0, len(images), batch)]
    return np.concatenate([np.asarray(part) for part in parts])


@partial(jax.jit, static_argnums=0)
def _softmax(model: Network, params: PyTree, images: Array) -> Array:
    return jax.nn.softmax(finest_logits(model, params, images))


def mean_parameters(several: Sequence[PyTree]) -> PyTree:
    """The mean of parameters of several checkpoints."""
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *several)


Variant = tuple[Callable[[Array], Array], Callable[[Array], Array]]


def augment_at_test_time(model: Network, variants: Sequence[Variant]) -> Model:
    """Test-time augmentation: the Model of the mean probability over variants of the images, as log-probabilities.

    A variant is a pair of functions (there, back): of the images, and of the probabilities. Mirroring is one.
    """
    return Model(model.init, static_partial(_mean_log_probability, model, tuple(variants)))


def _mean_log_probability(
    model: Network, variants: Sequence[Variant], params: PyTree, images: Array, key: Array | None = None
) -> Array:
    each = [back(jax.nn.softmax(finest_logits(model, params, there(images), key))) for there, back in variants]
    return jnp.log(jnp.maximum(sum(each) / len(each), 1e-12))


def refurbish(
    labels: Int[np.ndarray, "image *space"],
    flags: Bool[np.ndarray, " image"],
    teacher: Float[np.ndarray, "image *space class"],
    mode: str = "replace",
    *,
    blend: float = 0.7,
    certainty: float = 0.8,
    least: float = 0.3,
    most: float = 1.0,
    whole: bool = True,
) -> Repaired:
    """Labels in which flagged images are

        replace   the teacher's prediction    blend   (1 − b) · given + b · teacher's probabilities, b = `blend`
        mask      given, but of no weight     pixel   given, but the teacher's class where surer than `certainty`

    Guards: an image of which a structure would shrink below the fraction `least` keeps its label; at most the fraction
    `most` of the data set is changed, what disagrees most first; with `whole` only the largest connected component of
    each of the teacher's structures counts, except in blends: the others' voxels go to the class that is next likely.

    Raises:
        ConfigError: no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"refurbish: mode '{mode}'; expected one of {', '.join(MODES)}")
    classes = teacher.shape[-1]
    soft = np.eye(classes, dtype=np.float32)[labels]
    weight, changed = np.ones(len(labels), np.float32), np.zeros(len(labels), bool)
    if mode == "mask":
        return Repaired(soft, np.where(flags, 0, weight).astype(np.float32), changed)
    new = {int(k): _largest(teacher[k]) if whole else teacher[k].argmax(-1) for k in np.flatnonzero(flags)}
    allowed = [k for k, prediction in new.items() if _keeps_structures(labels[k], prediction, least)]
    apart = sorted(allowed, key=lambda k: mean_dice(new[k], labels[k]))
    for k in apart[: round(most * len(labels))]:
        prediction = np.eye(classes, dtype=np.float32)[new[k]]
        if mode == "replace":
            soft[k] = prediction
        elif mode == "blend":
            soft[k] = (1 - blend) * soft[k] + blend * teacher[k]
        else:
            sure = (teacher[k].max(-1) > certainty) & (teacher[k].argmax(-1) != labels[k])
            soft[k][sure] = prediction[sure]
        changed[k] = bool((soft[k].argmax(-1) != labels[k]).any()) or mode == "blend"
    return Repaired(soft, weight, changed)


def quality(
    labels: Int[np.ndarray, "image *space"],
    clean: Int[np.ndarray, "image *space"],
    flags: Bool[np.ndarray, " image"],
    corrupted: Bool[np.ndarray, " image"],
) -> dict[str, float]:
    """Mean Dice of labels with the truth: of all, flagged, corrupted ("bad") and falsely flagged images (NaN: none)."""
    each = np.array([mean_dice(one, true) for one, true in zip(labels, clean, strict=True)])
    groups = {"all": np.ones(len(each), bool), "flagged": flags, "bad": corrupted}
    groups["falsely_flagged"] = flags & ~corrupted
    return {name: float(each[chosen].mean()) if chosen.any() else float("nan") for name, chosen in groups.items()}


def end_of_early_learning(agreement: Sequence[float] | np.ndarray, change: float = 0.9) -> bool:
    """Whether early learning has ended and memorization of the labels sets in: the moment to look at them.

    `agreement` is the overlap with the given labels after the probes 1, 2, …; a (1 − exp(−b t^c)) is fitted to it, and
    true is f′(t) < (1 − `change`) max f′ at the last t, the maximum over the probes.

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


def _keeps_structures(given: np.ndarray, prediction: np.ndarray, least: float) -> bool:
    return all((prediction == c).sum() >= least * (given == c).sum() for c in np.unique(given) if c > 0)


def _largest(teacher: np.ndarray) -> np.ndarray:
    """The teacher's classes, the smaller components of each structure given to the class that is next likely."""
    label, rest = teacher.argmax(-1), teacher.copy()
    for c in np.unique(label):
        if c > 0:
            parts, _ = ndimage.label(label == c)
            sizes = np.bincount(parts.ravel())[1:]
            rest[(parts > 0) & (parts != 1 + int(sizes.argmax())), c] = -1
    return rest.argmax(-1)
