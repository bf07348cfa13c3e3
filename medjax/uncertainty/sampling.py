"""Drivers of predictive methods: n samples of a network's logits, of which only what is measured is kept.

    counts = samples(deep_ensemble, key, model, stacked_params, images, 5)               (sample, image, class)
    counts = samples(monte_carlo_dropout, key, model, params, images, 20)
    counts = samples(augmented_ensemble(flips(), members=5), key, model, stacked_params, images, 20)
    mean = mean_probabilities(deep_ensemble, key, model, stacked_params, images, 5)      (image, *space, class)

A method is any hashable draw(key, model, params, images, k) → logits (image, *space, class): those of `predictive`, or
a module-level function of yours. Sample k is one function that every image undergoes. So the ED and ES of a heart are
paired; with one key sample k is the same network for all subjects; and images may come in one stack or in many.
Samples depend neither on n nor on the strategy, up to rounding:

    loop   one jitted sample after the other, from the host              default on CPUs
    map    all in one program, one after the other (`lax.map`)
    vmap   all in one program, up to eight at a time                     default on accelerators

A sample is measured where it is made: memory does not grow with n but for the measures. Programs are kept for equal
draws, models, measures and shapes; that of `loop` serves every n. Keys of JAX's `rbg` differ under vmap.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from medjax.errors import ConfigError, DataError
from medjax.models.model import Network
from medjax.uncertainty.predictive import Draw, Images

STRATEGIES = ("loop", "map", "vmap")
WIDTH = 8  # samples that "vmap" draws at a time


@jax.jit
def class_counts(logits: Float[Array, "image *space class"]) -> Int[Array, "image class"]:
    """Number of voxels of each class in every image, by the largest logit; the first class of equal ones."""
    labels = jnp.argmax(logits, axis=-1)
    space, kinds = tuple(range(1, labels.ndim)), range(logits.shape[-1])
    return jnp.stack([jnp.sum(labels == kind, axis=space, dtype=jnp.int32) for kind in kinds], axis=-1)


def samples(
    draw: Draw,
    key: PRNGKeyArray,
    model: Network,
    params: PyTree,
    images: Images,
    n: int,
    *,
    measure: Callable[[Any], PyTree] = class_counts,
    strategy: str | None = None,
) -> PyTree:
    """Measures of samples 0 … n − 1 of a method's logits, stacked along a first axis, NumPy.

    Args:
        draw: the method.
        key: random key; the same one for all images whose samples belong together.
        model: network.
        params: what the method draws from: parameters, those of an ensemble stacked, or a `swag.posterior`.
        images: stack of images that every sample is drawn for.
        n: number of samples.
        measure: logits (image, *space, class) → pytree of arrays; hashable and jittable, but under "loop" any function.
        strategy: see the module; None: the backend's default.

    Raises:
        ConfigError: another strategy, or a draw, model or measure that is not hashable.
        DataError: n below 1, no image, what the method refuses, logits that are not finite, or samples that are all
            equal of a method whose samples differ: members that are one network, a network without dropout.
    """
    strategy = _strategy(strategy, STRATEGIES)
    images = _check(draw, model, params, images, n, measure, strategy)
    if strategy == "loop":
        rows = []
        for k in range(n):
            logits, mark = _sample(draw, model, key, params, images, np.int32(k))
            _check_finite([mark.finite], first=k)
            rows.append(jax.device_get((measure(logits), mark)))
        values, marks = jax.tree.map(lambda *each: np.stack(each), *rows)
    else:
        every = _samples(draw, model, measure, key, params, images, _numbers(n, strategy))
        values, marks = jax.device_get(jax.tree.map(lambda leaf: leaf[:n], every))
        _check_finite(marks.finite)
    _check_distinct(draw, marks.bits)
    return values


def fold_samples(
    draw: Draw,
    key: PRNGKeyArray,
    model: Network,
    params: PyTree,
    images: Images,
    n: int,
    *,
    update: Callable[[PyTree, Any], PyTree],
    state: PyTree,
    strategy: str | None = None,
) -> PyTree:
    """State after update(state, logits) for samples 0 … n − 1, one after the other: running sums over samples.

    Arguments as of `samples`; strategies "loop" and "map", the default of accelerators. `update` is hashable and
    jittable, and gives what has the shapes of `state`; under "loop" it is any function.

    Raises:
        ConfigError: another strategy, or a draw, model or update that is not hashable.
        DataError: as `samples`.
    """
    strategy = _strategy(strategy, STRATEGIES[:2])
    images = _check(draw, model, params, images, n, update, strategy)
    if strategy == "map":
        state, marks = _fold(draw, model, update, key, params, images, state, np.arange(n, dtype=np.int32))
        _check_finite(marks.finite)
        _check_distinct(draw, marks.bits)
        return state
    bits = []
    for k in range(n):
        logits, mark = _sample(draw, model, key, params, images, np.int32(k))
        _check_finite([mark.finite], first=k)
        state = update(state, logits)
        bits.append(mark.bits)
    _check_distinct(draw, bits)
    return state


def mean_probabilities(
    draw: Draw,
    key: PRNGKeyArray,
    model: Network,
    params: PyTree,
    images: Images,
    n: int,
    *,
    strategy: str | None = None,
) -> Float[np.ndarray, "image *space class"]:
    """Mean over n samples of the class probabilities of every voxel, by a running sum.

    Raises:
        DataError: a method whose logits do not lie on the grid of the images; and what `fold_samples` raises.
    """
    if not getattr(draw, "aligned", True):
        raise DataError("draw: its transform is not undone on the logits; expected an aligned one for means of voxels")
    images = _check(draw, model, params, images, n, _add_probabilities, "loop")
    shape = jax.eval_shape(lambda params, images: draw(key, model, params, images, 0), params, images).shape
    total = fold_samples(
        draw, key, model, params, images, n, update=_add_probabilities, state=jnp.zeros(shape), strategy=strategy
    )
    return np.asarray(total) / n


class _Mark(NamedTuple):
    """What is kept of a sample's logits beside its measure: whether they are finite, and the sum of their bits."""

    finite: Bool[Array, ""]
    bits: UInt32[Array, ""]


def _draw(draw: Draw, model: Network, key: Array, params: PyTree, images: Array, k: Array) -> tuple[Array, _Mark]:
    logits = draw(key, model, params, images, k)
    bits = jax.lax.bitcast_convert_type(logits.astype(jnp.float32), jnp.uint32)
    return logits, _Mark(jnp.all(jnp.isfinite(logits)), jnp.sum(bits, dtype=jnp.uint32))


_sample = jax.jit(_draw, static_argnums=(0, 1))


def _numbers(n: int, strategy: str) -> Int[np.ndarray, "*rows"]:
    """Numbers of the samples; for "vmap" in rows of those drawn at a time, the last one repeated to fill a row."""
    if strategy == "map":
        return np.arange(n, dtype=np.int32)
    rows = -(-n // WIDTH)
    width = -(-n // rows)
    return np.minimum(np.arange(rows * width, dtype=np.int32), np.int32(n - 1)).reshape(rows, width)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _samples(
    draw: Draw, model: Network, measure: Callable, key: Array, params: PyTree, images: Array, numbers: Array
) -> tuple[PyTree, _Mark]:
    """Measures and marks of the samples of these numbers, those of a row vmapped if there are rows."""

    def one(k: Array) -> tuple[PyTree, _Mark]:
        logits, mark = _draw(draw, model, key, params, images, k)
        return measure(logits), mark

    if numbers.ndim == 1:
        return jax.lax.map(one, numbers)
    rows = jax.lax.map(jax.vmap(one), numbers)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fold(
    draw: Draw,
    model: Network,
    update: Callable,
    key: Array,
    params: PyTree,
    images: Array,
    state: PyTree,
    numbers: Array,
) -> tuple[PyTree, _Mark]:
    def step(state: PyTree, k: Array) -> tuple[PyTree, _Mark]:
        logits, mark = _draw(draw, model, key, params, images, k)
        return update(state, logits), mark

    return jax.lax.scan(step, state, numbers)


@jax.jit
def _add_probabilities(total: Array, logits: Array) -> Array:
    return total + jax.nn.softmax(logits)


def _strategy(strategy: str | None, known: tuple[str, ...]) -> str:
    chosen = strategy or ("loop" if jax.default_backend() == "cpu" else known[-1])
    if chosen not in known:
        raise ConfigError(f"strategy of samples: {chosen!r}; expected one of {', '.join(known)}")
    return chosen


def _check(
    draw: Draw, model: Network, params: PyTree, images: Images, n: int, function: Callable, strategy: str
) -> Array:
    """The images, floating, after the checks that need no computing."""
    if n < 1:
        raise DataError(f"n: {n}; expected 1 sample or more")
    if images.ndim < 3 or 0 in images.shape:
        raise DataError(f"images: shape {images.shape}; expected (image, *space, channel), none of them 0")
    static: dict[str, Any] = {"draw": draw, "model": model}
    if strategy != "loop":
        static["measure or update"] = function
    for name, value in static.items():
        try:
            hash(value)
        except TypeError as error:
            raise ConfigError(f"{name}: {type(value).__name__} is not hashable; expected a static value") from error
    check = getattr(draw, "check", None)
    if check is not None:
        check(model, params, images, n)
    return jnp.asarray(images, float)


def _check_finite(finite: Any, first: int = 0) -> None:
    lost = np.flatnonzero(~np.asarray(finite))
    if len(lost):
        raise DataError(
            f"sample {first + lost[0]}: logits are not finite; expected finite images, parameters and transforms"
        )


def _check_distinct(draw: Draw, bits: Any) -> None:
    """Samples of a method that should differ are not all equal."""
    if getattr(draw, "distinct", False) and len(bits) > 1 and len({int(each) for each in bits}) == 1:
        raise DataError(
            f"samples: all {len(bits)} have equal logits; expected members that differ, a network with dropout,"
            " or a posterior that is not a point"
        )
