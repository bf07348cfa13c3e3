"""A reconstruction method as the PET experiments see it: one case and its knobs, batched over cases.

    run(b, key, case, **knobs) → Reconstruction(image, projections)

Knobs are traced, one value a case, so a sweep is one compilation.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments._pet import AnyArray, Scans, Setup


class Reconstruction(NamedTuple):
    """An image, and what it cost."""

    image: AnyArray
    projections: AnyArray  # forward and back-projections of the whole data


class Method(NamedTuple):
    """A reconstruction: `run(key, cases, knobs)` for many cases, and the values each knob is tuned over."""

    name: str
    run: Callable[[Array, Scans, Mapping[str, Any]], Reconstruction]
    grid: dict[str, tuple[float, ...]]  # the first is the knob whose sensitivity is reported: in factors of 2


def batched(b: Setup, one: Callable[..., Reconstruction], size: int) -> Callable[..., Reconstruction]:
    """`one(key, case, **knobs)` over cases, `size` at a time in one program."""

    @jax.jit
    def chunk(keys: Array, cases: Scans, knobs: dict[str, Array]) -> Reconstruction:
        return jax.vmap(lambda key, case, own: one(b, key, case, **own))(keys, cases, knobs)

    def run(key: Array, cases: Scans, knobs: Mapping[str, Array]) -> Reconstruction:
        count = cases.number
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(count))
        parts = []
        for first in range(0, count, size):
            index = np.minimum(np.arange(first, first + size), count - 1)  # the last chunk is filled up
            own = {name: jnp.asarray(np.asarray(values, np.float32)[index]) for name, values in knobs.items()}
            made = chunk(keys[index], to_device(cases, index), own)
            parts.append([np.asarray(array)[: count - first] for array in made])
        return Reconstruction(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    return run


def to_device(cases: Scans, index: np.ndarray) -> Scans:
    """Chosen cases on the device."""
    return Scans(*(jnp.asarray(array[index]) for array in cases))


def averaged(method: Method, samples: int) -> Method:
    """The mean of several samples instead of one."""

    def run(key: Array, cases: Scans, knobs: Mapping[str, Any]) -> Reconstruction:
        repeated = Scans(*(np.repeat(array, samples, axis=0) for array in cases))
        made = method.run(key, repeated, {name: np.repeat(values, samples) for name, values in knobs.items()})
        shape = (cases.number, samples)
        images = made.image.reshape(*shape, *made.image.shape[1:]).mean(axis=1)
        return Reconstruction(images, made.projections.reshape(shape).sum(axis=1))

    return Method(f"{method.name}_mean", run, method.grid)
