"""What probing labels costs: FLOPs against those of a training step, by XLA's own count, and CPU time as a ratio.

U-Net of 123 thousand parameters or so, 8 images of 64², GroupNorm, training steps with augmentation as in
`medjax labels audit`. Two ways to a gradient map of an image:

    separate   one forward pass and one backward pass to the image for each reading, five in the whole probe
    riding     the training step's own backward pass goes on to the image: to the augmented one, or through the
               augmentation to the image as it is, which is what `medjax.labels.dynamics` does

Times are CPU seconds of this process, its calls in turn; FLOPs and times are ratios to the training step.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.labels import scores
from medjax.labels.dynamics import Batch, TrainingSettings, algorithm, tracking_algorithm
from medjax.labels.probe import GRADIENTS, Probe, probe
from medjax.labels.scores import LabelScore
from medjax.models.unet import unet
from medjax.training.augment import Augmentation, augment

BATCH, SIDE, CLASSES, WIDTHS = 8, 64, 4, (8, 16, 32, 64)


def set_map(state: jax.Array, index: jax.Array, probe: Probe) -> jax.Array:
    """Nothing but the last map kept."""
    return state.at[index].set(probe.gradients["loss"])


LAST_MAP = {
    "map": LabelScore(
        lambda images, space: jnp.zeros((images, *space)),
        set_map,
        lambda state, labels: state.mean(axis=(1, 2)),
        ("loss",),
    )
}


def measure(functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]], rounds: int = 25) -> None:
    """Print FLOPs, temporary memory and the median CPU time of each, as ratios to the first's."""
    compiled = {name: jax.jit(call).lower(*inputs).compile() for name, (call, inputs) in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(rounds):
        for name, (_, inputs) in functions.items():
            start = time.process_time()
            jax.block_until_ready(compiled[name](*inputs))
            seconds[name].append(time.process_time() - start)
    flops = {name: (one.cost_analysis() or {})["flops"] for name, one in compiled.items()}
    first = next(iter(flops))
    print(f"| {'':44} | GFLOP | FLOPs | temporary MiB | CPU time |\n|---|---|---|---|---|")
    for name, one in compiled.items():
        memory = getattr(one.memory_analysis(), "temp_size_in_bytes", np.nan) / 2**20
        ratio = np.median(np.array(seconds[name]) / np.array(seconds[first]))
        print(
            f"| {name:44} | {flops[name] / 1e9:.3f} | {flops[name] / flops[first]:.3f} | {memory:.1f} | {ratio:.2f} |"
        )
    print(f"CPU time of a {first}: {1000 * np.median(seconds[first]):.0f} ms")


def main() -> None:
    """Measure and print."""
    model, settings = unet(CLASSES, WIDTHS), TrainingSettings(CLASSES, batch=BATCH)
    images = jax.random.uniform(jax.random.key(0), (BATCH, SIDE, SIDE, 1))
    labels = jax.random.randint(jax.random.key(1), (BATCH, SIDE, SIDE), 0, CLASSES)
    batch = Batch(images, labels, jnp.ones(BATCH), jnp.arange(BATCH))
    train = algorithm(model, settings).init(jax.random.key(2), images)
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(train.params)):,} parameters, {BATCH} images of {SIDE}²")

    def riding(settings: TrainingSettings, label_scores: dict[str, LabelScore]) -> tuple[Callable[..., Any], Any]:
        method = tracking_algorithm(model, settings, scores.trackers(label_scores))
        return method.step, method.init(train, scores.init(label_scores, BATCH, (SIDE, SIDE)))

    step_of_augmented, state = riding(settings._replace(augmentation=None), LAST_MAP)

    def riding_to_augmented(state: Any, batch: Batch) -> Any:
        keys = jax.random.split(jax.random.fold_in(state.train.key, state.step), BATCH)
        moved, named = jax.vmap(partial(augment, settings=Augmentation()))(keys, batch.images, batch.labels)
        return step_of_augmented(state, batch._replace(images=moved, labels=named))

    probing = (train.params, images, labels)
    step_of_map, with_map = riding(settings, LAST_MAP)
    step_of_vog, with_vog = riding(settings, {"vog_loss": scores.built_in(gradients=("loss",))["vog_loss"]})
    measure(
        {
            "training step": (algorithm(model, settings).step, (train, batch)),
            "riding step, map of the augmented image": (riding_to_augmented, (state, batch)),
            "riding step, map of the image as it is": (step_of_map, (with_map, batch)),
            "riding step, and its VOG": (step_of_vog, (with_vog, batch)),
            "forward pass": (model.apply, probing[:2]),
            "separate probe of one reading": (partial(probe, model.apply, gradients=("loss",)), probing),
            "separate probe of two, for the default VOG": (
                partial(probe, model.apply, gradients=("gt_minus_predicted", "predicted_loss")),
                probing,
            ),
            f"separate probe of all {len(GRADIENTS)} readings": (partial(probe, model.apply), probing),
        }
    )


if __name__ == "__main__":
    main()
