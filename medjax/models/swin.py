"""Swin Transformer for classification of volumes: shifted-window attention in stages of halved resolution.

    model = swin(classes=2, patch=2, width=12, depths=(2, 2), heads=(3, 6), window=5)
    params = model.init(key, x)                  x (batch, x, y, z, channel), of any sides
    logits = model.apply(params, x)              (batch, class)
    z = model.features(params, x)                the last feature map, normalised; model.head(params, z) are the logits

Version 2 opens every stage with a residual block of convolutions. Parts are arguments. No batch statistics: the logits
of a volume depend on that volume alone. For mixed precision give parameters and images of bfloat16: means, variances
and the softmax are computed in float32.

The encoder is MONAI's, which zero-pads volumes to multiples of patch and window and does not mask what it padded, and
which for a map smaller than the window takes the first rows and columns of the whole window's relative positions.

Source: Liu et al. (Swin Transformer), ICCV 2021; Hatamizadeh et al. (Swin UNETR), BrainLes 2021; version 2: He et al.
(SwinUNETR-V2), MICCAI 2023.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from numpy import ndarray

from medjax.errors import ConfigError, DataError
from medjax.models import windows
from medjax.models.classifier import Classifier
from medjax.models.layers import (
    Dense,
    FanIn,
    Function,
    Sum,
    add,
    convolution,
    global_average,
    layer_norm,
    norm_layer,
)
from medjax.models.model import Model, from_flax

NORM = layer_norm()
TORCH = FanIn(1 / 3, truncated=False)  # variance of PyTorch's default for dense layers and convolutions
TABLE_SD = 0.02  # standard deviation of the initial relative-position biases
RATIO = 4  # channels of the hidden layer of a block's MLP, as a multiple of the block's


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gaussian error linear unit x Φ(x), exact."""
    return nn.gelu(x, approximate=False)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a bias for each head and relative position."""

    heads: int
    window: int  # side of the window that the table of relative positions is for

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch window voxel c"], regions: Int[ndarray, "window voxel"] | None
    ) -> Float[Array, "batch window voxel c"]:
        """Attention's output, projected; `regions` as of `windows.attend`."""
        *lead, voxels, width = x.shape
        qkv = Dense(3 * width, kernel_init=TORCH, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(*lead, voxels, 3, self.heads, width // self.heads), -3, 0)
        table = self.param("position_bias", _biases, ((2 * self.window - 1) ** 3, self.heads))
        bias = table[windows.relative_index(self.window)[:voxels, :voxels]]
        mixed = windows.attend(q, k, v, jnp.moveaxis(bias, -1, 0), regions)
        return Dense(width, kernel_init=TORCH, name="out")(mixed.reshape(x.shape))


def _biases(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return TABLE_SD * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


class SwinBlock(nn.Module):
    """Swin Transformer block: x + attention(norm(x)) in windows, shifted or not, then x + MLP(norm(x))."""

    heads: int
    window: int
    shift: int
    norm: Callable[[], nn.Module]
    act: Function
    add: Sum

    @nn.compact
    def __call__(self, x: Float[Array, "batch x y z c"]) -> Float[Array, "batch x y z c"]:
        """Output of the block."""
        width = x.shape[-1]
        x = self.add(self._attention(norm_layer(self.norm, width, "norm_attention")(x)), x)
        y = norm_layer(self.norm, width, "norm_mlp")(x)
        y = self.act(Dense(RATIO * width, kernel_init=TORCH, name="mlp_in")(y))
        return self.add(Dense(width, kernel_init=TORCH, name="mlp_out")(y), x)

    def _attention(self, x: Array) -> Array:
        a, b, c = space = x.shape[1:4]
        window, shift = windows.fit_window(space, self.window, self.shift)
        x = windows.pad_to(x, window)
        padded, regions = x.shape[1:4], None
        if any(shift):
            x = jnp.roll(x, [-step for step in shift], (1, 2, 3))
            regions = windows.shift_regions(padded, window, shift)
        y = WindowAttention(self.heads, self.window, name="attention")(windows.partition(x, window), regions)
        y = windows.reverse(y, window, padded)
        return jnp.roll(y, shift, (1, 2, 3))[:, :a, :b, :c]


class ConvolutionBlock(nn.Module):
    """Residual block of two 3×3×3 convolutions, each with InstanceNorm and leaky ReLU: the start of a stage (v2)."""

    add: Sum

    @nn.compact
    def __call__(self, x: Float[Array, "batch x y z c"]) -> Float[Array, "batch x y z c"]:
        """Output of the block."""
        norm = nn.InstanceNorm(epsilon=1e-5, use_bias=False, use_scale=False, use_fast_variance=False)
        y = norm(convolution(3, x.shape[-1], 3, kernel_init=TORCH, name="conv_0")(x))
        y = norm(convolution(3, x.shape[-1], 3, kernel_init=TORCH, name="conv_1")(nn.leaky_relu(y)))
        return nn.leaky_relu(self.add(y, x))


class SwinFeatures(nn.Module):
    """Patch embedding and stages of Swin blocks, each followed by a merging of octants: the last map, normalised."""

    patch: int
    width: int  # channels of the first stage; each stage has twice as many as the one before
    depths: tuple[int, ...]  # blocks of each stage
    heads: tuple[int, ...]  # attention heads of each stage
    window: int
    version: int
    merge_order: str
    remat: bool
    norm: Callable[[], nn.Module] = NORM
    act: Function = gelu
    add: Sum = add

    @nn.compact
    def __call__(self, x: Float[Array, "batch *space channel"]) -> Float[Array, "batch *coarse c"]:
        """Last feature map, of `width` · 2^stages channels and side ⌈… ⌈⌈n / patch⌉ / 2⌉ … / 2⌉.

        Raises:
            DataError: x is no batch of volumes.
        """
        if x.ndim != 5:
            raise DataError(f"x: shape {x.shape}; expected (batch, x, y, z, channel)")
        # Blocks are recomputed in the gradient, so that it stores their inputs only.
        swin = nn.remat(SwinBlock) if self.remat else SwinBlock
        conv = nn.remat(ConvolutionBlock) if self.remat else ConvolutionBlock
        x = self._embed(x)
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            x = conv(self.add, name=f"stage_{stage}_conv")(x) if self.version == 2 else x
            for number in range(depth):
                shift = self.window // 2 if number % 2 else 0
                block = swin(heads, self.window, shift, self.norm, self.act, self.add, name=f"stage_{stage}_{number}")
                x = block(x)
            x = self._merge(x, f"merge_{stage}")
        return nn.LayerNorm(epsilon=1e-5, use_bias=False, use_scale=False, use_fast_variance=False)(x)

    def _embed(self, x: Array) -> Array:
        """Linear embedding of each patch, which is a convolution of the patch's side and stride."""
        side = (self.patch,) * 3
        x = windows.pad_to(x, side)
        counts = [n // self.patch for n in x.shape[1:4]]
        flat = windows.partition(x, side).reshape(len(x), *counts, -1)
        return Dense(self.width, kernel_init=TORCH, name="embed")(flat)

    def _merge(self, x: Array, name: str) -> Array:
        width = 2 * x.shape[-1]
        x = windows.merge_octants(x, self.merge_order)
        x = norm_layer(self.norm, x.shape[-1], f"{name}_norm")(x)
        return Dense(width, use_bias=False, kernel_init=TORCH, name=name)(x)


def swin(
    classes: int,
    patch: int = 2,
    width: int = 24,
    depths: Sequence[int] = (2, 2, 2, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 5,
    version: int = 2,
    merge_order: str = "fixed",
    remat: bool = True,
    norm: Callable[[], nn.Module] = NORM,
    act: Function = gelu,
    add: Sum = add,
    average: Function = global_average,
    dropout: float = 0.0,
) -> Model:
    """Swin Transformer as a Model: init(key, x) → params; apply(params, x) → logits `(batch, class)`, of volumes.

    `features(params, x)` is the last feature map, `head(params, z)` the logits of its mean over the volume. Parameters
    are the same for both values of `remat` and of `merge_order`.

    Args:
        patch: side of the patches that are embedded.
        width: channels of the first stage; each stage has twice as many as the one before.
        depths: blocks of each stage; every other one is shifted.
        heads: attention heads of each stage.
        window: side of the attention's windows.
        version: 2 opens every stage with a residual block of convolutions; 1 does not.
        merge_order: order of the octants in patch merging, "fixed", or "legacy" for weights of MONAI up to 1.4.0, which
            has two octants twice and lacks two.
        remat: blocks are recomputed in the gradient, which then stores their inputs only.
        norm: factory of the normalisation layers of the blocks and of patch merging.
        act: activation of the blocks' MLPs.
        add: sum of a block's branch and its input.
        average: pooling of the whole feature map in the head.
        dropout: probability of dropout before the dense layer, with `apply(params, x, key=key)`.

    Raises:
        ConfigError: not as many depths as heads, heads that do not divide a stage's channels, a window of less than
            two, an unknown version or order.
    """
    depths, heads = tuple(depths), tuple(heads)
    if len(depths) != len(heads) or not depths:
        raise ConfigError(f"depths, heads: {len(depths)} and {len(heads)}; expected one of each for every stage")
    for stage, number in enumerate(heads):
        if (width << stage) % number:
            raise ConfigError(f"heads: {number} in stage {stage}; expected a divisor of its {width << stage} channels")
    if window < 2:
        raise ConfigError(f"window: {window}; expected 2 or more")
    if version not in (1, 2):
        raise ConfigError(f"version: {version}; expected 1 or 2")
    if merge_order not in windows.ORDERS:
        raise ConfigError(f"merge_order: {merge_order!r}; expected one of {', '.join(windows.ORDERS)}")
    fields = (patch, width, depths, heads, window, version, merge_order, remat)
    return from_flax(Classifier(classes, SwinFeatures(*fields, norm, act, add, name="features"), average, dropout))
