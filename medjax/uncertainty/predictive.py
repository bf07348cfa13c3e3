"""Methods that draw predictive samples: deep ensembles, Monte-Carlo dropout, test-time augmentation, and both together.

    logits = deep_ensemble(key, model, stacked_params, images, k)                sample k: logits (image, *space, class)
    logits = test_time_augmentation(compose(flips(), gamma()))(key, model, params, images, k)
    describe(fold_ensemble, 5)                                                   "5 folds (different training data)"

Sample k is one function that every image undergoes: one member, one dropout mask, one transform. Whatever is random in
it comes from fold_in(key, k), so it does not depend on how many are drawn. `sampling.samples` draws and measures them.

Source: Lakshminarayanan et al., NeurIPS 2017 (deep ensembles); Gal & Ghahramani, ICML 2016 (Monte-Carlo dropout);
Wang et al., Neurocomputing 338, 2019 (test-time augmentation).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from medjax.errors import ConfigError, DataError, MedjaxError, type_and_message
from medjax.iterate import static_partial
from medjax.models.model import Network, finest_logits
from medjax.uncertainty.transforms import Transform, check_transform

EnsembleKind = Literal["seeds", "folds"]
TRAINING_DATA = {"seeds": "the same training data", "folds": "different training data"}
Images = Float[Array, "image *space channel"] | Float[np.ndarray, "image *space channel"]
Number = int | Int[Array, ""] | Int[np.ndarray, ""]
Logits = Float[Array, "image *space class"]


@runtime_checkable
class Draw(Protocol):
    """Protocol of a method: hashable, draw(key, model, params, images, k) → logits of sample k, which is traced."""

    def __call__(self, key: PRNGKeyArray, model: Network, params: PyTree, images: Images, k: Number) -> Logits:
        """Logits (image, *space, class) of sample k of all images."""
        ...


@jax.tree_util.register_static
@dataclass(frozen=True)
class Method:
    """A draw, and what `sampling.samples` should know of it."""

    draw: Callable[..., Array]
    description: str  # of n samples: a text with {n}
    check: Callable[..., None] | None = None  # check(model, params, images, n) raises for what cannot be drawn
    distinct: bool = False  # samples that are all equal mean that there is nothing to draw from
    aligned: bool = True  # logits lie on the grid of the images; volumes are theirs in any case

    def __call__(self, key: PRNGKeyArray, model: Network, params: PyTree, images: Images, k: Number) -> Logits:
        """Logits (image, *space, class) of sample k of all images."""
        return self.draw(key, model, params, images, k)


def method(
    description: str, check: Callable[..., None] | None = None, distinct: bool = False
) -> Callable[[Callable[..., Array]], Method]:
    """Decorator that makes a `Method` of a draw."""
    return lambda draw: Method(draw, description, check, distinct)


def describe(draw: Draw, n: int) -> str:
    """Description of n samples of a method, for a table: what they are and, of an ensemble, which training data."""
    text = getattr(draw, "description", None)
    return f"{n} samples of {getattr(draw, '__name__', repr(draw))}" if text is None else text.replace("{n}", str(n))


def stack_members(members: Sequence[PyTree]) -> PyTree:
    """Parameters of an ensemble, stacked along a first axis, of those of its networks.

    Raises:
        DataError: no network, or networks whose parameters differ in structure or shape.
    """
    if not members:
        raise DataError("members: none; expected the parameters of at least one network")
    shapes = [jax.tree.map(np.shape, one) for one in members]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise DataError(f"members: shapes of parameters of member {number} differ from those of 0; expected equal")
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *members)


def member_count(params: PyTree) -> int:
    """Number of members of an ensemble: the first axis of all its parameters.

    Raises:
        DataError: parameters that are not stacked.
    """
    sizes = sorted({np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(params)})
    if len(sizes) != 1 or sizes[0] < 1:
        raise DataError(
            f"params: first axes of {sizes or 'nothing'}; expected parameters stacked along a first axis of members"
        )
    return sizes[0]


def network_logits(model: Network, params: PyTree, images: Images, key: PRNGKeyArray | None = None) -> Logits:
    """Logits (image, *space, class) of the finest level; a `key` turns dropout on.

    Raises:
        DataError: the network does not take these images or parameters, or gives something else.
    """
    try:
        logits = finest_logits(model, params, jnp.asarray(images), key)
    except MedjaxError:
        raise
    except Exception as error:  # whatever a user's network raises
        raise DataError(
            f"the network does not take these parameters and images of {images.shape}: {type_and_message(error)}"
        ) from error
    if logits.shape[:-1] != images.shape[:-1]:
        raise DataError(f"the network gives {logits.shape} for {images.shape}; expected (image, *space, class)")
    return logits


def _check_ensemble(model: Network, params: PyTree, images: Images, n: int) -> None:
    members = member_count(params)
    if n > members:
        raise DataError(
            f"n: {n} samples of an ensemble of {members}; expected at most {members}; see augmented_ensemble"
        )


@method("{n} seeds (the same training data)", _check_ensemble, distinct=True)
def deep_ensemble(key: PRNGKeyArray, model: Network, params: PyTree, images: Images, k: Number) -> Logits:
    """Deep ensemble: sample k is member k, its members trained on the same data from different seeds.

    `params` are stacked, member first, as a population's or by `stack_members`. NaN for a k that is no member.

    Source: Lakshminarayanan et al., NeurIPS 2017.
    """
    return network_logits(model, _member(params, k), images)


@method("{n} folds (different training data)", _check_ensemble, distinct=True)
def fold_ensemble(key: PRNGKeyArray, model: Network, params: PyTree, images: Images, k: Number) -> Logits:
    """Ensemble of the networks of a cross-validation: sample k is the one of fold k.

    Computed as a `deep_ensemble`, but no such: each network lacks other training data, so that the samples also vary
    with the data and each of them has seen less. `describe` says so in tables.
    """
    return network_logits(model, _member(params, k), images)


@method("{n} dropout masks", distinct=True)
def monte_carlo_dropout(key: PRNGKeyArray, model: Network, params: PyTree, images: Images, k: Number) -> Logits:
    """Monte-Carlo dropout: sample k has the dropout mask of fold_in(key, k), one mask for all images.

    The network must have dropout: of two samples or more that are all equal, `sampling.samples` makes an error.

    Source: Gal & Ghahramani, ICML 2016.
    """
    own = jax.random.fold_in(key, k)
    # a network draws a mask for each image of its batch; image by image all draw that of the same key
    return jax.vmap(lambda image: network_logits(model, params, image[None], own)[0])(jnp.asarray(images))


def test_time_augmentation(transform: Transform) -> Method:
    """Test-time augmentation (TTA): sample 0 is the plain prediction, sample k that of the images under map k.

    Map k is drawn by fold_in(key, k), and undone on the logits where the transform is aligned.

    Source: Wang et al., Neurocomputing 338, 2019.
    """
    return Method(
        static_partial(_augment, transform),
        "{n} transforms, the first the identity",
        static_partial(_check_augmentation, transform, None),
        aligned=transform.aligned,
    )


def augmented_ensemble(transform: Transform, members: int, kind: EnsembleKind = "seeds") -> Method:
    """Ensemble × test-time augmentation: of M members, sample k is member k mod M under map k div M.

    Map 0 is the identity, map j that of fold_in(key, j) for every member. The first M samples are the ensemble's;
    a multiple of M weighs the members equally. `kind` is how the members differ, for `describe`.

    Raises:
        ConfigError: fewer than one member, or another kind.
    """
    if members < 1 or kind not in get_args(EnsembleKind):
        raise ConfigError(f"members, kind: {members}, {kind!r}; expected 1 or more, {' or '.join(TRAINING_DATA)}")
    return Method(
        static_partial(_augment_member, transform, members),
        f"{{n}} samples: {members} {kind} ({TRAINING_DATA[kind]}) × transforms, the first the identity",
        static_partial(_check_augmentation, transform, members),
        aligned=transform.aligned,
    )


def _augment_member(
    transform: Transform, members: int, key: PRNGKeyArray, model: Network, params: PyTree, images: Images, k: Number
) -> Logits:
    return _augment(transform, key, model, _member(params, k % members), images, k // members)


def _augment(
    transform: Transform, key: PRNGKeyArray, model: Network, params: PyTree, images: Images, number: Number
) -> Logits:
    own, plain = jax.random.fold_in(key, number), jnp.asarray(number) == 0
    logits = network_logits(model, params, jnp.where(plain, images, transform.forward(own, jnp.asarray(images))))
    return jnp.where(plain, logits, transform.inverse(own, logits))


def _check_augmentation(
    transform: Transform, members: int | None, model: Network, params: PyTree, images: Images, n: int
) -> None:
    if members is not None and member_count(params) != members:
        raise DataError(f"params: {member_count(params)} members; expected {members}, those of the augmented_ensemble")
    check_transform(transform, images.shape[1:])


def _member(params: PyTree, k: Number) -> PyTree:
    """Parameters of member k; NaN where there is none, for an index beyond the end would repeat the last one."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).at[k].get(mode="fill", fill_value=jnp.nan), params)
