"""What looking at labels costs: FLOPs of probes against those of a training step, by XLA's own count, and times.

U-Net of 123 thousand parameters or so, 8 images of 64², GroupNorm. The probe of a reading is one forward pass and one
backward pass to the image; the whole probe of `medjax.labels.probe` has five of those backward passes.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.labels.probe import READINGS, probe
from medjax.models.unet import unet
from medjax.training.losses import dice_cross_entropy
from medjax.training.old_state import init, make_train_step

BATCH, SIDE, CLASSES, WIDTHS = 8, 64, 4, (8, 16, 32, 64)


def measured(functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]], rounds: int = 15) -> None:
    """Print FLOPs, temporary memory and the least time of each, in turn, as shares of the first's."""
    compiled = {name: jax.jit(call).lower(*inputs).compile() for name, (call, inputs) in functions.items()}
    seconds = dict.fromkeys(compiled, np.inf)
    for _ in range(rounds):
        for name, (_, inputs) in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled[name](*inputs))
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    flops = {name: (one.cost_analysis() or {})["flops"] for name, one in compiled.items()}
    first = next(iter(flops))
    print(f"| {'':36} | GFLOP | FLOPs | temporary MiB | time |\n|---|---|---|---|---|")
    for name, one in compiled.items():
        memory = getattr(one.memory_analysis(), "temp_size_in_bytes", np.nan) / 2**20
        print(
            f"| {name:36} | {flops[name] / 1e9:.2f} | {flops[name] / flops[first]:.2f} | {memory:.1f} | "
            f"{seconds[name] / seconds[first]:.2f} |"
        )
    print(f"time of a {first}: {1000 * seconds[first]:.0f} ms")


def main() -> None:
    """Measure and print."""
    model = unet(CLASSES, WIDTHS)
    apply = model.apply
    images = jax.random.normal(jax.random.key(0), (BATCH, SIDE, SIDE, 1))
    labels = jax.random.randint(jax.random.key(1), (BATCH, SIDE, SIDE), 0, CLASSES)
    params = model.init(jax.random.key(2), images)
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters, {BATCH} images of {SIDE}²")

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return jnp.mean(dice_cross_entropy(apply(params, batch[0]), batch[1]))

    optimiser = optax.adam(1e-3)
    step = make_train_step(loss, optimiser)
    probing = (params, images, labels)
    measured(
        {
            "training step": (step, (jax.random.key(3), init(params, optimiser), (images, labels))),
            "forward pass": (apply, probing[:2]),
            "probe of one reading": (partial(probe, apply, readings=("gt_logit",)), probing),
            "probe of two, for the default VOG": (
                partial(probe, apply, readings=("gt_minus_own", "own_loss")),
                probing,
            ),
            f"probe of all {len(READINGS)} readings": (partial(probe, apply), probing),
        }
    )


if __name__ == "__main__":
    main()
