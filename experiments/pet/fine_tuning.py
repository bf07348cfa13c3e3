"""Fine-tuning of a score prior on volumes: every competitor starts from the same network and makes as many steps.

    personal = fine_tune(load_prior("osem"), pseudo_pets, 300, 1e-3, seed, work, "prior_target_0", one_anatomy=True)

The jitted step is called from a Python loop, since a convolution's gradient inside a scan is slow on a CPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import iterate
from medjax.diffusion.prior import Prior
from medjax.diffusion.prior_file import example_inputs
from medjax.diffusion.prior_training import AUGMENTATION, OF_ONE_ANATOMY, initial_params, trainer, training_slices
from medjax.errors import DataError
from medjax.running.arrays import from_numbered_leaves, to_numbered_leaves
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage
from medjax.training.state import require_finite_loss

Volumes = Sequence[Any] | np.ndarray  # images (x, y, z)
LOSSES = 20  # of the last steps, whose mean is kept


def fine_tune(
    prior: Prior,
    images: Volumes | Callable[[], Volumes],
    steps: int,
    learning_rate: float,
    seed: int,
    work: WorkDir,
    name: str,
    mr: Volumes | Callable[[], Volumes] | None = None,
    *,
    batch: int = 8,
    orientations: Sequence[int] = (2,),
    one_anatomy: bool = False,
) -> Prior:
    """Fine-tune a prior on slices of `images`; the moving average of the parameters is kept as stage `name`.

    Each volume is divided by its mean emission, as all slices that priors see. With `mr`, an MR image (any unit) on the
    voxels of each PET, the prior becomes MR-guided: the new input's weights begin at 0.

    Args:
        prior: prior to start from.
        images: PET volumes (x, y, z), or a function that gives them, called only where the stage is not kept yet.
        steps: training steps.
        learning_rate: largest learning rate.
        seed: random seed of batches and noise.
        work: work directory.
        name: name of the stage.
        mr: MR volumes, as `images`.
        batch: slices in a step.
        orientations: axes that slices are perpendicular to; for several, volumes are padded to cubes.
        one_anatomy: whether all images show one anatomy: slices are then neither mirrored nor shifted.

    Raises:
        DataError: an image has no voxel above 0, numbers or shapes differ, or the loss is not finite.
    """
    settings = prior.settings if mr is None else prior.settings._replace(mr_guided=True)
    like = jax.eval_shape(lambda: prior.model.init(jax.random.key(0), *example_inputs(settings)))

    def make() -> dict[str, Any]:
        data = slices_of(_volumes(images), None if mr is None else _volumes(mr), prior.settings.multiple, orientations)
        algorithm = trainer(
            prior.model, settings, prior.sigma_data, steps, learning_rate,
            augmentation=OF_ONE_ANATOMY if one_anatomy else AUGMENTATION,
        )  # fmt: skip
        key = jax.random.key(seed)
        examples, patch = example_inputs(settings), settings.patch
        first = initial_params(prior.model, jax.random.fold_in(key, 1), examples, prior.params, patch)
        state, losses = algorithm.init(first, jax.random.fold_in(key, 2)), list[float]()

        def batches(number: int) -> tuple[Array, Array]:
            chosen = np.random.default_rng((seed, number)).integers(len(data["axes"]), size=batch)
            return jnp.asarray(data["slices"][chosen], jnp.float32), jnp.asarray(data["axes"][chosen])

        states = iterate.loop(
            algorithm, state, steps, inputs=batches, every=min(LOSSES, steps), check=require_finite_loss, donate=True,
            progress=lambda numbers: track(numbers, name),
        )  # fmt: skip
        for now, infos in states:
            state = now
            losses.append(float(np.mean(infos.loss)))
        return {"params": to_numbered_leaves(state.ema_params), "loss": np.asarray(losses)}

    kept = stage(work, name, make)
    return Prior(from_numbered_leaves(kept["params"], like), prior.sigma_data, prior.sde, prior.model, settings)


def slices_of(
    images: Volumes, mr: Volumes | None, multiple: int, orientations: Sequence[int] = (2,)
) -> dict[str, np.ndarray]:
    """Training slices (`slices`, `axes`) of volumes, each over its mean emission; channels: PET, and MR if any.

    Sides are padded to a multiple, and for several orientations to cubes.

    Raises:
        DataError: an image has no voxel above 0, or numbers or shapes differ.
    """
    channels = [images] if mr is None else [images, mr]
    shapes = {np.shape(image) for channel in channels for image in channel}
    if len({len(channel) for channel in channels}) != 1 or len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise DataError(f"images: {[len(channel) for channel in channels]} of shapes {shapes}; expected equal volumes")
    [shape] = shapes
    used = [axis for axis in range(3) if tuple(orientations) != (axis,)]
    side = {axis: -(-shape[axis] // multiple) * multiple for axis in used}
    if len(orientations) > 1:
        side = dict.fromkeys(used, max(side.values()))
    padding = [((n := side.get(axis, size) - size) // 2, n - n // 2) for axis, size in enumerate(shape)]
    volumes = (
        np.stack([np.pad(_normalize(image), padding) for image in pair], axis=-1)
        for pair in zip(*channels, strict=True)
    )
    return training_slices(volumes, orientations)


def _normalize(image: Any) -> np.ndarray:
    """The image over its mean emission, as `score_matching.normalize_intensity`, on the host."""
    image = np.maximum(np.asarray(image, np.float32), 0)
    inside = image > 0.01 * image.max()
    if not inside.any():
        raise DataError("image: no voxel is above 0; expected an emission image")
    return image / image[inside].mean()


def _volumes(images: Volumes | Callable[[], Volumes]) -> Volumes:
    return images() if callable(images) else images
