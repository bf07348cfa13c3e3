"""Layers of networks: weight initializers, convolution, norms, pooling, up-sampling, dropout, 3-D convolutions.

    Conv(width, (3, 3))(x), Dense(width)(x)      Flax's layers, parameter names and initial weights
    group_norm(8)                                a factory of layers, equal to another one of equal arguments
    convolution(3, 16, side=3, stride=2)(x)      a layer for so many spatial axes, padded as PyTorch pads: Conv, Conv3D
    y = conv3d(x, kernel, strides=(2, 2, 2))     x (batch, x, y, z, channel), kernel (kx, ky, kz, in, out)
    y = conv_transpose3d(x, kernel)              every voxel becomes a block of the kernel's size

XLA has no fast 3-D convolution for CPUs. As a 2-D convolution ("folded") it takes a fraction of the time, as does its
gradient (`scripts/bench_conv3d.py`). The axis that is folded is x: it lies beside the batch, so that nothing is
transposed. Which form runs is decided when a program is lowered, for the platform that it is lowered for.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import ConfigError, DataError
from medjax.iterate import static_partial

Function = Callable[[Array], Array]
Sum = Callable[[Array, Array], Array]
Triple = tuple[int, int, int]
FORMS = ("auto", "native", "folded")  # forms of a 3-D convolution, see `conv3d`


@dataclass(frozen=True)
class FanIn:
    """Fan-in initializer: normal of mean 0 and variance `scale` / fan in, fan in = elements / those of `out_axis`.

    The numbers of `jax.nn.initializers.variance_scaling(scale, "fan_in")`, bit for bit, but drawn flat and reshaped:
    XLA compiles a draw of four or five axes for CPUs many times more slowly. `truncated` at two standard deviations,
    and scaled to that variance.
    """

    scale: float = 1.0
    truncated: bool = True
    out_axis: int = -1

    def __call__(self, key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        """Initial weights of this shape."""
        size = math.prod(shape)
        sd = jnp.sqrt(jnp.array(self.scale * shape[self.out_axis] / size, dtype))
        if not self.truncated:
            return jax.random.normal(key, (size,), dtype).reshape(shape) * sd
        sd = sd / jnp.array(TRUNCATED_NORMAL_SD, dtype)
        return jax.random.truncated_normal(key, -2, 2, (size,), dtype).reshape(shape) * sd


TRUNCATED_NORMAL_SD = 0.87962566103423978  # standard deviation of a standard normal truncated at ±2
LECUN = FanIn()  # Flax's default
HE = 2 / (1 + 0.01**2)  # He's variance scale for leaky ReLUs of slope 0.01
CONVOLUTION = FanIn(HE, truncated=False)
# The fan in of PyTorch's transposed convolutions is their fan out; nnU-Net's are initialized so.
TRANSPOSED = FanIn(HE, truncated=False, out_axis=-2)
ZEROS = nn.initializers.zeros

Conv = functools.partial(nn.Conv, kernel_init=LECUN)
Dense = functools.partial(nn.Dense, kernel_init=LECUN)


def group_norm(groups: int = 8) -> Callable[[], nn.Module]:
    """Factory of GroupNorm layers; with as many groups as channels it is InstanceNorm."""
    return static_partial(nn.GroupNorm, groups)


def instance_norm(epsilon: float = 1e-5) -> Callable[[], nn.Module]:
    """Factory of InstanceNorm layers."""
    return static_partial(nn.InstanceNorm, epsilon=epsilon)


def layer_norm(epsilon: float = 1e-5) -> Callable[[], nn.Module]:
    """Factory of LayerNorm layers, over the channels."""
    return static_partial(nn.LayerNorm, epsilon=epsilon, use_fast_variance=False)


def norm_layer(norm: Callable[[], nn.Module], width: int, name: str | None = None) -> nn.Module:
    """Normalisation layer of a factory for so many channels.

    A GroupNorm of a number of groups that does not divide them gets the largest one that divides both.
    """
    layer = norm()
    if isinstance(layer, nn.GroupNorm) and layer.num_groups:
        return layer.copy(num_groups=math.gcd(layer.num_groups, width), name=name)
    return layer.copy(name=name)


def spatial_dropout(
    module: nn.Module, x: Float[Array, "batch *space c"], rate: float
) -> Float[Array, "batch *space c"]:
    """Spatial dropout: whole channels of an example set to 0 with probability `rate`, the others divided by 1 − rate.

    x itself where `rate` is 0 or `module` is applied without a `dropout` key. Neighbouring voxels correlate, so that
    dropout of single ones has little effect.

    Source: Tompson et al., CVPR 2015.
    """
    if rate == 0 or not module.has_rng("dropout"):
        return x
    return nn.Dropout(rate, broadcast_dims=tuple(range(1, x.ndim - 1)), deterministic=False)(x)


def pool(h: Float[Array, "batch *space c"]) -> Float[Array, "batch *half c"]:
    """Average pooling over blocks of two voxels along every axis."""
    window = (2,) * (h.ndim - 2)
    return nn.avg_pool(h, window, window)


def max_pool(h: Float[Array, "batch *space c"]) -> Float[Array, "batch *half c"]:
    """Maximum over three voxels along every axis, at every other one: a side of n becomes ⌈n / 2⌉.

    Flax's `max_pool` of window 3, stride 2 and padding 1, gradients of ties too, one axis after the other: on CPUs
    its gradient takes a quarter of the time.
    """
    for axis in range(h.ndim - 2, 0, -1):
        ends = [(1, 1) if one == axis else (0, 0) for one in range(h.ndim)]
        padded = jnp.pad(h, ends, constant_values=-jnp.inf)
        first, second, third = (
            jax.lax.slice_in_dim(padded, start, start + h.shape[axis], 2, axis) for start in range(3)
        )
        h = _larger(_larger(first, second), third)
    return h


def _larger(x: Array, y: Array) -> Array:
    """Maximum whose gradient is wholly that of x in a tie."""
    return jnp.where(x >= y, x, y)


def global_average(h: Float[Array, "batch *space c"]) -> Float[Array, "batch c"]:
    """Mean over all voxels."""
    return jnp.mean(h, axis=range(1, h.ndim - 1))


def add(x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Residual sum, x + y."""
    return x + y


def upsample(h: Float[Array, "batch *space c"]) -> Float[Array, "batch *double c"]:
    """Nearest-neighbour up-sampling by two along every axis."""
    for axis in range(1, h.ndim - 1):
        h = jnp.repeat(h, 2, axis)
    return h


class Conv3D(nn.Module):
    """3-D convolution, or transposed one whose stride is its kernel's size; for `form` see `conv3d`."""

    width: int
    kernel: Triple
    strides: Triple = (1, 1, 1)
    form: str = "auto"
    transposed: bool = False
    use_bias: bool = True
    kernel_init: FanIn | None = None  # He's for leaky ReLUs, as nnU-Net's

    @nn.compact
    def __call__(self, x: Float[Array, "batch x y z in"]) -> Float[Array, "batch new_x new_y new_z out"]:
        """Output of `width` channels."""
        initializer = self.kernel_init or (TRANSPOSED if self.transposed else CONVOLUTION)
        kernel = self.param("kernel", initializer, (*self.kernel, x.shape[-1], self.width))
        x, kernel = nn.dtypes.promote_dtype(x, kernel)
        y = conv_transpose3d(x, kernel) if self.transposed else conv3d(x, kernel, self.strides, self.form)
        return y + self.param("bias", ZEROS, (self.width,)).reshape(1, 1, 1, 1, -1) if self.use_bias else y


def convolution(
    axes: int,
    width: int,
    side: int,
    stride: int = 1,
    use_bias: bool = False,
    kernel_init: FanIn = LECUN,
    name: str | None = None,
) -> nn.Module:
    """Convolution layer for images of so many spatial axes, Conv3D for three and Flax's Conv for others.

    The kernel has an odd `side` along every axis. Zero-padded by (side − 1) / 2: a side of n voxels becomes
    ⌈n / stride⌉.
    """
    if axes == 3:
        return Conv3D(width, (side,) * 3, (stride,) * 3, use_bias=use_bias, kernel_init=kernel_init, name=name)
    padding = (side - 1) // 2
    return nn.Conv(width, (side,) * axes, stride, padding, use_bias=use_bias, kernel_init=kernel_init, name=name)


def conv3d(
    x: Float[Array, "batch x y z in"],
    kernel: Float[Array, "kx ky kz in out"],
    strides: Triple = (1, 1, 1),
    form: str = "auto",
) -> Float[Array, "batch new_x new_y new_z out"]:
    """3-D convolution y[n] = Σ_k x[s n + k − (K − 1) / 2] · kernel[k], zero-padded: PyTorch's of padding (K − 1) / 2.

    A side of n voxels becomes ⌈n / s⌉. `form` "native" is XLA's convolution; "folded" is a 2-D convolution of planes
    across one axis, say x, whose batch is (batch, x) and whose channels are those of the planes under the kernel's x
    taps: equal up to the order of summation; "auto" is folded in programs for CPUs, and one 2-D convolution everywhere
    for slices: one voxel and one tap along an axis. Differentiable forwards and backwards.

    Raises:
        ConfigError: an unknown form, or a stride below 1.
        DataError: a kernel with an even side.
    """
    if form not in FORMS:
        raise ConfigError(f"form: {form!r}; expected one of {', '.join(FORMS)}")
    if min(strides) < 1:
        raise ConfigError(f"strides: {strides}; expected whole numbers of at least 1")
    if any(side % 2 == 0 for side in kernel.shape[:3]):
        raise DataError(f"kernel: sides {kernel.shape[:3]}; expected odd ones")
    flat = [axis for axis in range(3) if x.shape[1 + axis] == kernel.shape[axis] == 1]
    if form == "auto" and flat:
        return _slice(x, kernel, strides, flat[-1])
    return {"auto": _auto, "folded": _folded, "native": _native}[form](x, kernel, strides)


def _slice(x: Array, kernel: Array, strides: Triple, axis: int) -> Array:
    """2-D convolution of the other two axes."""
    in_plane = _first(strides, axis)[1:]
    return jnp.expand_dims(_convolve(x.squeeze(1 + axis), kernel.squeeze(axis), in_plane, "YZ"), 1 + axis)


@functools.partial(jax.checkpoint, static_argnums=2, prevent_cse=False)
def _auto(x: Array, kernel: Array, strides: Triple) -> Array:
    """Folded on CPUs, else native; a checkpoint, so that a gradient stores x and kernel only."""
    cpu, others = (functools.partial(form, strides=strides) for form in (_folded, _native))
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=others)


def _native(x: Array, kernel: Array, strides: Triple) -> Array:
    return _convolve(x, kernel, strides, "XYZ")


def _folded(x: Array, kernel: Array, strides: Triple) -> Array:
    """Σ_i conv2d(x[:, i::stride], kernel[i]), summed by the convolution itself: planes i are its channels.

    Planes lie across the axis of the fewest taps, x among equals: a kernel of one tap along z convolves the planes of a
    stack as they are.
    """
    axis = min(range(3), key=lambda k: kernel.shape[k])
    y = _fold_x(jnp.moveaxis(x, 1 + axis, 1), jnp.moveaxis(kernel, axis, 0), _first(strides, axis))
    return jnp.moveaxis(y, 1, 1 + axis)


def _first(values: Triple, axis: int) -> Triple:
    one, other = (values[k] for k in range(3) if k != axis)
    return values[axis], one, other


def _fold_x(x: Array, kernel: Array, strides: Triple) -> Array:
    taps, pad, stride = len(kernel), (len(kernel) - 1) // 2, strides[0]
    batch, side = x.shape[0], (x.shape[1] - 1) // stride + 1
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0), (0, 0), (0, 0)))
    planes = [padded[:, i : i + (side - 1) * stride + 1 : stride] for i in range(taps)]
    together = jnp.concatenate(planes, axis=-1).reshape(batch * side, *x.shape[2:4], -1)
    weights = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
    y = _convolve(together, weights, strides[1:], "YZ")
    return y.reshape(batch, side, *y.shape[1:])


def _convolve(x: Array, kernel: Array, strides: tuple[int, ...], space: str) -> Array:
    padding = [((side - 1) // 2,) * 2 for side in kernel.shape[:-2]]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def conv_transpose3d(
    x: Float[Array, "batch x y z in"], kernel: Float[Array, "kx ky kz in out"]
) -> Float[Array, "batch new_x new_y new_z out"]:
    """Transposed 3-D convolution of stride K, its kernel's size: y[K n + k] = x[n] · kernel[k], 0 ≤ k < K.

    One matrix product and a rearrangement. PyTorch's ConvTranspose3d; `jax.lax.conv_transpose` and Flax flip the
    kernel, so theirs is this one of `kernel[::-1, ::-1, ::-1]`.
    """
    sides = kernel.shape[:3]
    blocks = jnp.einsum("bxyzi,pqrio->bxpyqzro", x, kernel)
    space = [side * k for side, k in zip(x.shape[1:4], sides, strict=True)]
    return blocks.reshape(len(x), *space, kernel.shape[-1])
