"""3-D convolutions that are fast on processors too: one of 3-D as one of 2-D, and up-sampling as a matrix product.

    y = conv3d(x, kernel, strides=(2, 2, 2))      x (batch, x, y, z, channel), kernel (kx, ky, kz, in, out)
    y = conv_transpose3d(x, kernel)               every voxel becomes a block of the kernel's size

XLA has no fast 3-D convolution for CPUs: the folded form does the same work several times faster, its gradient too
(`scripts/bench_conv3d.py`). The axis that is folded is x: it lies beside the batch, so that nothing is transposed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import ConfigError, DataError

Triple = tuple[int, int, int]
FORMS = ("auto", "native", "folded")


def conv3d(
    x: Float[Array, "batch x y z in"],
    kernel: Float[Array, "kx ky kz in out"],
    strides: Triple = (1, 1, 1),
    form: str = "auto",
) -> Float[Array, "batch new_x new_y new_z out"]:
    """y[n] = Σ_k x[s n + k − (K − 1) / 2] · kernel[k], with zeros outside: PyTorch's convolution, padding (K − 1) / 2.

    A side of n voxels becomes ⌈n / s⌉. `form` "native" is XLA's convolution; "folded" is a 2-D convolution of planes
    across x, whose batch is (batch, x) and whose channels are those of the planes under the kernel's x taps: equal up
    to the order of summation; "auto" is folded where JAX's default backend, when the function is traced, is the CPU.

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
    folded = form == "folded" or (form == "auto" and jax.default_backend() == "cpu")
    return _folded(x, kernel, strides) if folded else _convolved(x, kernel, strides, "XYZ")


def _folded(x: Array, kernel: Array, strides: Triple) -> Array:
    """Σ_i conv2d(x[:, i::stride], kernel[i]), summed by the convolution itself: planes i are its channels."""
    taps, pad, stride = len(kernel), (len(kernel) - 1) // 2, strides[0]
    batch, side = x.shape[0], (x.shape[1] - 1) // stride + 1
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0), (0, 0), (0, 0)))
    planes = [padded[:, i : i + (side - 1) * stride + 1 : stride] for i in range(taps)]
    together = jnp.concatenate(planes, axis=-1).reshape(batch * side, *x.shape[2:4], -1)
    weights = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
    y = _convolved(together, weights, strides[1:], "YZ")
    return y.reshape(batch, side, *y.shape[1:])


def _convolved(x: Array, kernel: Array, strides: tuple[int, ...], space: str) -> Array:
    padding = [((side - 1) // 2,) * 2 for side in kernel.shape[:-2]]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def conv_transpose3d(
    x: Float[Array, "batch x y z in"], kernel: Float[Array, "kx ky kz in out"]
) -> Float[Array, "batch new_x new_y new_z out"]:
    """y[K n + k] = x[n] · kernel[k], 0 ≤ k < K: the transposed convolution whose stride K is its kernel's size.

    One matrix product and a rearrangement. PyTorch's ConvTranspose3d; `jax.lax.conv_transpose` and Flax turn the kernel
    round, so theirs is this one of `kernel[::-1, ::-1, ::-1]`.
    """
    sides = kernel.shape[:3]
    blocks = jnp.einsum("bxyzi,pqrio->bxpyqzro", x, kernel)
    space = [side * k for side, k in zip(x.shape[1:4], sides, strict=True)]
    return blocks.reshape(len(x), *space, kernel.shape[-1])
