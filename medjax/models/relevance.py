"""Relevance propagation through a Flax network: its forward pass, whose pullback carries relevance, not gradients.

    outputs, pullback = jax.vjp(lambda x: model.relevance(params, x, rules), x)        outputs = model.apply(params, x)
    (relevance,) = pullback(relevance of the outputs)                                  of x, and of x's shape

Every layer is a `jax.custom_vjp` whose backward pass is a rule: it splits the relevance R of the layer's outputs among
its inputs, in proportion to contributions z_ij of input i to output j,

    R_i = Σ_j z_ij / (z_j + ε sign(z_j)) · R_j         z_j = Σ_i z_ij,  sign(0) = +1

- Convolutions and dense layers: by the rule that `rules.rule(layer)` gives.
- GroupNorm, InstanceNorm, LayerNorm, with mean and standard deviation held constant, are affine: folded into the layer
  with a kernel before them, as BatchNorm is, kernel · scale / sd with bias − scale · mean / sd; elsewhere
  z_ii = x_i scale / sd. What the bias contributes takes its part of the relevance.
- Residual sums, average pooling: z_ij = x_i ∂f_j/∂x_i, which sums to f_j for homogeneous f (Euler), as these are. The
  sum x + y thus splits in proportion to x and y: without that, residual networks do not conserve relevance.
- Maximum pooling, up-sampling: to the voxel whose value it is.
- Activations pass relevance unchanged. Dropout is off.

Memory is that of a gradient: each layer keeps its input. What has no rule is refused, never treated as a gradient. A
module that does all its work by such layers and by its fields `act`, `add`, `pool`, `average` and `up` says so, by
`layerwise: ClassVar[bool] = True`; reshaping, slicing and concatenation need no rule.

Source: Bach et al., PLoS ONE 10(7), 2015; Montavon et al., Layer-Wise Relevance Propagation: An Overview, 2019.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import linear
from jaxtyping import Array, Float, PyTree

from medjax.errors import ConfigError
from medjax.models.batch_norm import FrozenBatchNorm
from medjax.models.layers import Conv3D

LINEAR = (linear.Conv, linear.ConvTranspose, linear.Dense, Conv3D)
NORMS = (nn.GroupNorm, nn.InstanceNorm, nn.LayerNorm, FrozenBatchNorm)
HOMOGENEOUS = ("add", "pool", "average", "up")  # fields of modules that hold homogeneous functions
Operation = Callable[[Array, Array], Array]  # (kernel, x) → y, bilinear


class Layer(NamedTuple):
    """A layer with a kernel, as rules are chosen by."""

    kind: str  # "convolution" or "dense"
    number: int  # in the order of the forward pass, from 0
    path: str  # names of the modules around it and its own, as "features/stem_conv"


@runtime_checkable
class Rules(Protocol):
    """Rules of a network, a pytree."""

    @property
    def epsilon(self) -> Any:
        """Stabiliser ε of sums, pooling and norms."""
        ...

    def rule(self, layer: Layer) -> Callable[[Operation, Array, Array, Array, Array], Array]:
        """Rule of a layer, a pytree: (operation, kernel, bias, x, relevance of the outputs) → relevance of x."""
        ...


def stabilize(z: Float[Array, "*shape"], epsilon: Any) -> Float[Array, "*shape"]:
    """z + ε sign(z), with sign(0) = +1: a denominator that is not 0."""
    return z + jnp.where(z < 0, -epsilon, epsilon).astype(z.dtype)


def redistribute(
    function: Callable[..., Array], inputs: Sequence[Array], relevance: Array, epsilon: Any
) -> list[Array]:
    """Relevance of each input: x ∂f/∂x · R / (f + ε sign f), for y = f(*inputs)."""
    y, pullback = jax.vjp(function, *inputs)
    return [x * gradient for x, gradient in zip(inputs, pullback(relevance / stabilize(y, epsilon)), strict=True)]


def relevance(module: nn.Module, params: PyTree, x: Float[Array, "batch *space channel"], rules: Rules) -> Any:
    """Outputs of a module, whose pullback carries relevance: see above.

    Raises:
        ConfigError: a layer or a function without a rule; the message names it.
    """
    numbers, within, around = itertools.count(), [False], list[tuple[Any, str]]()
    sources = dict[int, tuple[Array, Any, Any, Array]]()  # by the identity of its output: output, layer, rule, input

    def propagated(layer: Any, path: str, x: Array) -> Array:
        if isinstance(layer, NORMS):
            _check_norm(layer, path)
            before = sources.get(id(x))
            return _norm(layer, x, rules.epsilon) if before is None else _linear(*before[1:], norm=layer)
        rule = rules.rule(Layer("dense" if isinstance(layer, linear.Dense) else "convolution", next(numbers), path))
        y = _linear(layer, rule, x)
        sources[id(y)] = (y, layer, rule, x)
        return y

    def intercept(next_fun: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
        layer, path = context.module, "/".join(context.module.path) or (around[-1][1] if around else "")
        if within[0] or context.method_name == "setup" or isinstance(layer, nn.Dropout):
            return next_fun(*args, **kwargs)  # `within` a layer: its own operation, as `_linear` applies it
        if isinstance(layer, LINEAR + NORMS):
            within[0] = True
            try:
                return propagated(layer, path, *args, **kwargs)
            finally:
                within[0] = False
        if not _is_flax(layer):  # run before it is refused: the innermost layer is the one to name
            around.append((layer, path))
            outputs = next_fun(*args, **kwargs)
            around.pop()
            if getattr(type(layer), "layerwise", False) or any(layer is one for one, _ in around):  # it called itself
                return outputs
        raise ConfigError(_no_rule(layer, path))

    with nn.intercept_methods(intercept):
        return _with_rules(module, rules.epsilon).apply({"params": params}, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _propagate(forward: Callable[..., Array], backward: Callable[..., Sequence[Array]], data: Any, *xs: Array) -> Array:
    """forward(data, *xs), whose pullback is backward(data, xs, relevance); `data` are weights and a rule's settings."""
    return forward(data, *xs)


def _keep(forward: Callable[..., Array], backward: Any, data: Any, *xs: Array) -> tuple[Array, Any]:
    return forward(data, *xs), (data, xs)


def _pull(forward: Any, backward: Callable[..., Sequence[Array]], kept: Any, relevance: Array) -> tuple[Any, ...]:
    return (None, *backward(*kept, relevance))


_propagate.defvjp(_keep, _pull)


def _linear(layer: Any, rule: Any, x: Array, norm: Any = None) -> Array:
    """Layer with a kernel, and the norm after it, by the layer's rule."""
    plain = layer.clone(parent=None, name=None, use_bias=False)

    def operation(kernel: Array, x: Array) -> Array:
        return plain.apply({"params": {"kernel": kernel}}, x)

    def forward(data: Any, x: Array) -> Array:
        weights, scales, _ = data
        y = operation(weights["kernel"], x) + _channels(weights, "bias", x.ndim)
        return y if norm is None else _normalized(norm, scales, y)

    def backward(data: Any, xs: tuple[Array], relevance: Array) -> list[Array]:
        weights, scales, rule = data
        kernel, bias = weights["kernel"], _channels(weights, "bias", xs[0].ndim)
        if norm is None:
            return [rule(operation, kernel, bias, *xs, relevance)]
        mean, sd = _statistics(norm, operation(kernel, *xs) + bias)
        axes = relevance.ndim
        folded = _channels(scales, "bias", axes) + (bias - mean) / sd * _channels(scales, "scale", axes, 1.0)
        scaled = kernel * _channels(scales, "scale", kernel.ndim, 1.0)  # output channels are a kernel's last axis
        return [rule(lambda kernel, x: operation(kernel, x) / sd, scaled, folded, *xs, relevance)]

    scales: Any = {} if norm is None else norm.variables.get("params", {})
    return _propagate(forward, backward, (layer.variables["params"], scales, rule), x)


def _norm(layer: Any, x: Array, epsilon: Any) -> Array:
    """A norm without a layer with a kernel before it."""

    def forward(data: Any, x: Array) -> Array:
        return _normalized(layer, data[0], x)

    def backward(data: Any, xs: tuple[Array], relevance: Array) -> list[Array]:
        scales, epsilon = data
        slope = _channels(scales, "scale", relevance.ndim, 1.0) / _statistics(layer, *xs)[1]
        return [xs[0] * slope * relevance / stabilize(forward(data, *xs), epsilon)]

    return _propagate(forward, backward, (layer.variables.get("params", {}), epsilon), x)


def _normalized(norm: Any, scales: Any, y: Array) -> Array:
    mean, sd = _statistics(norm, y)
    return (y - mean) / sd * _channels(scales, "scale", y.ndim, 1.0) + _channels(scales, "bias", y.ndim)


def _channels(weights: Any, name: str, axes: int, default: float = 0.0) -> Array:
    """Weights of channels, the last of so many axes."""
    return jnp.asarray(weights.get(name, [default])).reshape((1,) * (axes - 1) + (-1,))


def _statistics(norm: Any, y: Array) -> tuple[Array, Array]:
    """Mean and standard deviation that a norm divides by, of y's number of axes."""
    space, channels = tuple(range(1, y.ndim - 1)), y.shape[-1]
    if isinstance(norm, FrozenBatchNorm):
        return jnp.zeros((1,) * y.ndim, y.dtype), jnp.ones((1,) * y.ndim, y.dtype)
    if isinstance(norm, nn.LayerNorm):
        groups, axes = 1, (-1,)
    elif isinstance(norm, nn.InstanceNorm):
        groups, axes = channels, space
    else:
        groups, axes = norm.num_groups or channels // norm.group_size, (*space, -1)
    grouped = y.reshape(*y.shape[:-1], groups, -1)
    mean, variance = (statistic(grouped, axes, keepdims=True) for statistic in (jnp.mean, jnp.var))
    sizes = (*mean.shape[:-1], channels // groups)
    mean, sd = (
        jnp.broadcast_to(one, sizes).reshape(*mean.shape[:-2], channels)
        for one in (mean, jnp.sqrt(variance + norm.epsilon))
    )
    return mean, sd


def _check_norm(norm: Any, path: str) -> None:
    if getattr(norm, "reduction_axes", None) not in (None, -1) or getattr(norm, "feature_axes", -1) != -1:
        raise ConfigError(f"{_no_rule(norm, path)} over other axes than its default ones")


def _by_contributions(forward: Callable[..., Array]) -> Callable[..., list[Array]]:
    def backward(epsilon: Any, xs: tuple[Array, ...], relevance: Array) -> list[Array]:
        return redistribute(functools.partial(forward, epsilon), xs, relevance, epsilon)

    return backward


def _with_rules(module: nn.Module, epsilon: Any) -> nn.Module:
    """The module, and those in its fields, with functions in their fields that propagate relevance."""
    changed = dict[str, Any]()
    for field in fields(module):
        value: Any = getattr(module, field.name, None)
        if isinstance(value, nn.Module) and field.name != "parent":
            changed[field.name] = _with_rules(value, epsilon)
        elif field.name == "act":
            changed["act"] = _activation(value, module)
        elif field.name in HOMOGENEOUS:
            changed[field.name] = _homogeneous(value, field.name, module, epsilon)
    return module.clone(**changed)


def _activation(act: Callable[[Array], Array], module: nn.Module) -> Callable[[Array], Array]:
    """An activation that passes relevance unchanged."""
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    y = _evaluate(act, x)
    if y[16] != 0 or (x * y < 0).any():
        what = _no_rule(act, f"act of {_name(module)}")
        raise ConfigError(f"{what}: expected 0 at 0, and elsewhere 0 or the sign of x")
    return functools.partial(_propagate, lambda _, x: act(x), lambda _, xs, relevance: [relevance], None)


def _homogeneous(function: Callable[..., Array], field: str, module: nn.Module, epsilon: Any) -> Callable[..., Array]:
    """A sum, pooling or up-sampling that propagates relevance."""

    def forward(epsilon: Any, *xs: Array) -> Array:
        return function(*xs)

    def propagate(*xs: Array) -> Array:
        shapes = [(x.shape[0], *(min(side, 4) for side in x.shape[1:])) for x in xs]  # an image of few voxels will do
        small = [np.cos(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape) for shape in shapes]
        once, twice = _evaluate(function, *small), _evaluate(function, *(2 * x for x in small))
        if not np.allclose(2 * once, twice, rtol=1e-4, atol=1e-5):
            raise ConfigError(f"{_no_rule(function, f'{field} of {_name(module)}')}: expected f(2 x) = 2 f(x)")
        if np.isin(once, small[0]).all():  # every output is one of the inputs
            return function(*xs)
        return _propagate(forward, _by_contributions(forward), epsilon, *xs)

    return propagate


def _evaluate(function: Callable[..., Array], *xs: np.ndarray) -> np.ndarray:
    """Values of a function, also while a program is traced around it: compiled ahead of time."""
    return np.asarray(jax.jit(function).lower(*xs).compile()(*xs))


def _is_flax(layer: nn.Module) -> bool:
    return type(layer).__module__.startswith("flax.")


def _no_rule(layer: Any, path: str) -> str:
    return f"LRP has no rule for {_name(layer)}" + (f" ({path})" if path else "")


def _name(thing: Any) -> str:
    return type(thing).__name__ if isinstance(thing, nn.Module) else getattr(thing, "__name__", repr(thing))
