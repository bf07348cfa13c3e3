"""Registration network: a U-Net on a pair of images that gives a stationary velocity field at half their resolution.

    model = registration_unet()
    params = model.init(key, fixed, moving)      both (batch, *space), sides multiples of 2 ** (levels of widths)
    velocity = model.apply(params, fixed, moving)      (batch, *half, dim), in voxels of the half grid

The finest level sees blocks of two voxels a side as channels (space to depth): it works at the resolution of its
output, at an eighth of the locations of a volume. The last layer starts near 0, so that training starts from the
identity. Any number of spatial axes.

Source: after VoxelMorph, Dalca et al., Medical Image Analysis 57, 2019.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.models.layers import FanIn, Function, convolution, group_norm, norm_layer, pool, upsample
from medjax.models.model import Model, from_flax
from medjax.models.score_layers import space_to_depth

BLOCK = 2  # voxels along each side of a block that becomes channels
NEAR_ZERO = FanIn(1e-4, truncated=False)
GROUPS = group_norm(8)


class RegistrationUNet(nn.Module):
    """U-Net on two images; `widths` are the channels of each level, the first one at half the images' resolution."""

    widths: tuple[int, ...] = (32, 64, 96, 128)
    act: Function = nn.leaky_relu

    @nn.compact
    def __call__(
        self, fixed: Float[Array, "batch *space"], moving: Float[Array, "batch *space"]
    ) -> Float[Array, "batch *half dim"]:
        """Velocity field from the fixed image's grid, at half its resolution and in voxels of that.

        Raises:
            DataError: sides are no multiples of 2 to the number of levels.
        """
        axes, multiple = fixed.ndim - 1, BLOCK ** len(self.widths)
        if any(side % multiple for side in fixed.shape[1:]):
            raise DataError(f"registration network: images of {fixed.shape[1:]}; expected multiples of {multiple}")
        x = space_to_depth(jnp.stack([fixed, moving], axis=-1), BLOCK)
        skips: list[Array] = []
        for depth, width in enumerate(self.widths):
            x = self._block(x if depth == 0 else pool(x), width, f"down_{depth}")
            skips.append(x)
        for depth, width in reversed(list(enumerate(self.widths[:-1]))):
            narrow = convolution(axes, width, 1, use_bias=True, name=f"narrow_{depth}")(x)
            x = self._block(jnp.concatenate([upsample(narrow), skips[depth]], axis=-1), width, f"up_{depth}")
        return convolution(axes, axes, 3, use_bias=True, kernel_init=NEAR_ZERO, name="velocity")(x)

    def _block(self, x: Array, width: int, name: str) -> Array:
        for number in range(2):
            x = convolution(x.ndim - 2, width, 3, name=f"{name}_conv_{number}")(x)
            x = self.act(norm_layer(GROUPS, width, f"{name}_norm_{number}")(x))
        return x


def registration_unet(widths: Sequence[int] = (32, 64, 96, 128)) -> Model:
    """Registration network as a Model: init(key, fixed, moving) → params; apply(params, fixed, moving) → velocity."""
    return from_flax(RegistrationUNet(tuple(widths)))
