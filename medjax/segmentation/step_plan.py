"""Stages of nnU-Net's training and prediction, for the plan of a run (`running.plan`): nothing is read or trained."""

from math import ceil, prod

import jax
import jax.numpy as jnp

from medjax.models.model import Network, finest_logits
from medjax.running.plan import Stage, array, training_stage
from medjax.segmentation import nnunet
from medjax.segmentation.plan import Plan
from medjax.training.augment_nnunet import augmentation_for_plan, source_patch

OVERLAP = 2  # windows that hold a voxel, along each axis


def training(
    name: str, model: Network, plan: Plan, epochs: int, iterations: int, rate: float, number: int = 1
) -> Stage:
    """Stage of the training of `number` networks, each of `epochs` of `iterations` steps."""
    augmentation = augmentation_for_plan(plan.patch, plan.flat_axis, plan.mirror)._replace(patch=plan.patch)
    settings = nnunet.StepSettings(epochs, iterations, augmentation, plan.batch_dice, plan.ignore, plan.regions)
    space = source_patch(augmentation, plan.patch)
    batch = array(plan.batch, *space, len(plan.channels)), array(plan.batch, *space, dtype=jnp.int32)
    example = (array(1, *plan.patch, len(plan.channels)),)
    algorithm = nnunet.trainer(model, settings, rate)
    return training_stage(name, algorithm, model.init, example, batch, number * epochs * iterations)


def prediction(
    name: str, model: Network, plan: Plan, shape: tuple[int, ...], volumes: int, networks: int, mirror: bool = True
) -> Stage:
    """Stage of the prediction of `volumes` of this shape by `networks`, in overlapping windows, mirrored or not."""
    starts = [max(ceil((n - p) / (p / OVERLAP)), 0) + 1 for n, p in zip(shape, plan.patch, strict=True)]
    windows = prod(starts) * (2 ** len(plan.mirror) if mirror else 1)
    patch = array(1, *plan.patch, len(plan.channels))
    params = jax.eval_shape(model.init, jax.random.key(0), patch)

    def step(params: object, patch: jax.Array) -> jax.Array:
        return finest_logits(model, params, patch)

    return Stage(name, step, (params, patch), volumes * networks * windows)
