"""Maps of pixel-wise uncertainty from samples of class probabilities, one sample at a time.

    state = init((8, 80, 80, 4))                             (image, *space, class)
    for k in range(n):
        state = update(state, softmax(logits_k))             no more than one sample is held
    maps(state).mutual_information                           (image, *space)

Total uncertainty is split as H[E p] = E H[p] + MI. What all samples are unsure of (noise, an unclear border) is in
E H[p], the aleatoric part; what they contradict each other about is in the mutual information, the epistemic one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float, Int

from medjax.errors import DataError

AnyArray = Array | np.ndarray


class UncertaintySums(NamedTuple):
    """Sums over samples."""

    probability: Float[Array, "image *space class"]
    entropy: Float[Array, "image *space"]
    votes: Int[Array, "image *space class"]  # samples that predict each class
    samples: Int[Array, ""]


class UncertaintyMaps(NamedTuple):
    """Maps of uncertainty; entropies in nats, 0 to ln(classes)."""

    probability: Float[Array, "image *space class"]  # mean over samples
    predictive_entropy: Float[Array, "image *space"]  # H[E p], total
    expected_entropy: Float[Array, "image *space"]  # E H[p], aleatoric
    mutual_information: Float[Array, "image *space"]  # of class and sample (BALD), epistemic; 0 with one sample
    variation_ratio: Float[Array, "image *space"]  # fraction of samples that do not predict the commonest class


def init(shape: tuple[int, ...]) -> UncertaintySums:
    """Sums before any sample of probabilities of this shape, (image, *space, class).

    Raises:
        DataError: fewer than two classes.
    """
    if len(shape) < 2 or shape[-1] < 2:
        raise DataError(f"shape: {shape}; expected (image, *space, class) with two classes or more")
    none = jnp.zeros(shape)
    return UncertaintySums(none, jnp.zeros(shape[:-1]), none.astype(jnp.int32), jnp.zeros((), jnp.int32))


def update(state: UncertaintySums, probabilities: Float[AnyArray, "image *space class"]) -> UncertaintySums:
    """The sums with one more sample; runs under jit and scan.

    Raises:
        DataError: another shape.
    """
    p = jnp.asarray(probabilities, jnp.float32)
    if p.shape != state.probability.shape:
        raise DataError(f"probabilities: shape {p.shape}; expected {state.probability.shape}")
    vote = jax.nn.one_hot(jnp.argmax(p, axis=-1), p.shape[-1], dtype=jnp.int32)
    return UncertaintySums(
        state.probability + p, state.entropy + jnp.sum(entr(p), axis=-1), state.votes + vote, state.samples + 1
    )


def merge(one: UncertaintySums, other: UncertaintySums) -> UncertaintySums:
    """The sums of all samples of both, of the same images."""
    return jax.tree.map(jnp.add, one, other)


def maps(state: UncertaintySums) -> UncertaintyMaps:
    """Maps of uncertainty over the samples so far; NaN where a sample was, and everywhere before the first one.

    Source: predictive entropy, mutual information: Houlsby et al., arXiv 1112.5745, 2011; Gal, Islam & Ghahramani,
    ICML 2017; variation ratio: Freeman, Elementary Applied Statistics, 1965.
    """
    n = state.samples.astype(jnp.float32)
    mean, expected = state.probability / n, state.entropy / n
    total = jnp.sum(entr(mean), axis=-1)
    between = jnp.maximum(total - expected, 0)  # rounding
    ratio = 1 - jnp.max(state.votes, axis=-1) / n
    return UncertaintyMaps(mean, total, expected, between, jnp.where(jnp.isnan(total), total, ratio))


def uncertainty_maps(probabilities: Float[AnyArray, "sample image *space class"]) -> UncertaintyMaps:
    """Maps of uncertainty of samples that are all at hand.

    Raises:
        DataError: no sample, or as `init`.
    """
    if not len(probabilities):
        raise DataError("probabilities: no sample; expected at least 1")
    start = init(tuple(probabilities.shape[1:]))
    return maps(jax.lax.scan(lambda state, p: (update(state, p), None), start, jnp.asarray(probabilities))[0])
