"""Pseudo-Dice, by which a training follows itself: of the voxels of random validation patches together.

Source: Isensee et al., Nature Methods 18, 2021; nnU-Net v2's trainer.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from medjax.models.model import Network, finest_logits
from medjax.segmentation.patches import Batches
from medjax.segmentation.plan import Plan
from medjax.training.losses import region_masks


def pseudo_dice(model: Network, plan: Plan, params: PyTree, batches: Batches, epoch: int, number: int) -> float:
    """Mean over structures, or the plan's regions, of 2 TP / (2 TP + FP + FN) over `number` batches of this epoch.

    Structures that are neither in these patches nor predicted are left out; NaN if all are.
    """
    counts = [jax.device_get(_count(model, plan, params, *batches(epoch * number + k))) for k in range(number)]
    both, predicted, true = np.sum(counts, axis=0, dtype=float)
    present = predicted + true > 0
    return float(np.mean(2 * both[present] / (predicted + true)[present])) if present.any() else np.nan


@partial(jax.jit, static_argnames=("model", "plan"))
def _count(
    model: Network, plan: Plan, params: PyTree, images: Float[Array, "*_"], labels: Int[Array, "*_"]
) -> Float[Array, "3 structure"]:
    """Voxels of each structure: true positives, predicted, true; those that are ignored do not count."""
    logits = finest_logits(model, params, images)
    if plan.regions:
        predicted, true = logits > 0, region_masks(labels, plan.regions)
    else:
        predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), plan.classes, dtype=bool)[..., 1:]
        true = jax.nn.one_hot(labels, plan.classes, dtype=bool)[..., 1:]
    counted = (labels != (-1 if plan.ignore is None else plan.ignore))[..., None]
    masks = (predicted & true & counted, predicted & counted, true & counted)
    return jnp.stack([jnp.sum(one, axis=tuple(range(labels.ndim)), dtype=jnp.float32) for one in masks])
