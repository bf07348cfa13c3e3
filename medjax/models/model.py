"""Model: a network as pure functions, init(key, *examples) → params and apply(params, *inputs) → outputs.

    model = from_flax(UNet(classes=4, …))        or Model(init, apply), or any object with these two methods
    params = model.init(key, image)
    logits = model.apply(params, image)          with `key=…` dropout is on

Trainers and predictors take a model as an argument and build none. A Model is static to `jit` and equals another one
built equally, so what is compiled for one is found again for the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from medjax.errors import ConfigError, DataError, type_and_message
from medjax.iterate import static_partial
from medjax.models.relevance import relevance


@runtime_checkable
class Network(Protocol):
    """Protocol of a network for trainers and predictors: a `Model`, or any hashable object with these methods."""

    @property
    def init(self) -> Callable[..., PyTree]:
        """Initial parameters: init(key, *examples) → params."""
        ...

    @property
    def apply(self) -> Callable[..., Any]:
        """Forward pass: apply(params, *inputs, key=None) → outputs; a `key` turns dropout on."""
        ...


@jax.tree_util.register_static
@dataclass(frozen=True)
class Model:
    """Network as pure, hashable functions: module-level functions, or `iterate.static_partial`s.

    A segmentation network's output is logits `(batch, *space, class)`, or a tuple of them, finest first. `features`,
    `head` and `relevance` are for attribution and may be absent: see `require`.
    """

    init: Callable[..., PyTree]  # (key, *examples) → params
    apply: Callable[..., Any]  # (params, *inputs, key=None) → outputs
    features: Callable[..., Any] | None = None  # (params, x) → z
    head: Callable[..., Any] | None = None  # (params, z) → outputs
    relevance: Callable[..., Any] | None = None  # (params, x, rules) → outputs, whose pullback carries relevance


def from_flax(module: nn.Module) -> Model:
    """Model of a Flax linen module whose only variables are `params`; `key` is its `dropout` stream.

    `init` is compiled as one program that computes nothing but weights. Flax's initializers draw those of several axes
    slowly on CPUs: `layers.FanIn` draws the same numbers flat.

    Modules with methods `features(x)` and `head(z)` give a Model those too. `relevance` refuses modules with layers
    that it has no rule for. Modules with equal fields give equal Models: use tuples for sequences.
    """
    methods = {
        name: _Method(module, name) if callable(getattr(type(module), name, None)) else None
        for name in OPTIONAL_METHODS
    }
    return Model(_Init(module), _Method(module, "__call__"), **methods, relevance=static_partial(relevance, module))


def require(model: Any, name: str, use: str) -> Callable[..., Any]:
    """Optional function `name` of a model, needed for `use`.

    Raises:
        ConfigError: the model has none.
    """
    function = getattr(model, name, None)
    if function is None:
        raise ConfigError(f"{use} needs a model with `{name}`; this one has none")
    return function


def finest_logits(
    model: Network, params: PyTree, images: Float[Array, "batch *space channel"], key: PRNGKeyArray | None = None
) -> Any:
    """Logits (batch, *space, class) of a segmentation network, of the finest level under deep supervision.

    `key` turns dropout on. Under `jit` the other levels cost nothing.
    """
    outputs = model.apply(params, images, key=key)
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


def check_network(model: Network, shape: tuple[int, ...], classes: int) -> None:
    """Check that a network gives logits of these classes for images of `shape` (*space, channel); nothing is computed.

    Raises:
        DataError: the network does not take such images, or gives something else.
    """
    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        params = jax.eval_shape(model.init, jax.random.key(0), one)
        found = jax.eval_shape(partial(finest_logits, model), params, one)
    except Exception as error:  # whatever a user's network raises
        raise DataError(
            f"the network does not take images of {shape} (space, channel): {type_and_message(error)}"
        ) from error
    given, wanted = getattr(found, "shape", f"a {type(found).__name__}"), (1, *shape[:-1], classes)
    if given != wanted:
        raise DataError(f"the network gives {given} for an image of {shape}; expected {wanted}")


OPTIONAL_METHODS = ("features", "head")


@dataclass(frozen=True)
class _Init:
    module: nn.Module

    def __call__(self, key: Array, *examples: Array) -> PyTree:
        return _init(self.module, key, *examples)


@dataclass(frozen=True)
class _Method:
    module: nn.Module
    name: str

    def __call__(self, params: PyTree, *inputs: Any, key: Array | None = None) -> Any:
        return _applied(self.module, self.name, params, inputs, key)


def _init(module: nn.Module, key: Array, *examples: Array) -> PyTree:
    return _initialized(module, key, *examples)["params"]


def _apply(module: nn.Module, name: str, params: PyTree, inputs: tuple[Any, ...], key: Array | None) -> Any:
    rngs = {} if key is None else {"dropout": key}
    return module.apply({"params": params}, *inputs, method=name, rngs=rngs)


# One program when called by hand, instead of one an operation; within another program it leaves no trace.
_applied = jax.jit(_apply, static_argnums=(0, 1), inline=True)
_initialized = jax.jit(lambda module, key, *examples: module.init(key, *examples), static_argnums=0)
