"""File of a registration network: weights as float16 and its settings as JSON, by which the network is built again.

save(path, TrainedNetwork(model, params, settings))
network = load(path)
predict(network.model, network.params, fixed, moving, multiple=network.settings.multiple)
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from medjax.errors import ConfigError, DataError
from medjax.models import build
from medjax.models.model import Network
from medjax.models.saved_settings import LARGEST, Range, check_layers, read_settings
from medjax.models.weights import fit_weights, initial_shapes, load_weights, save_weights

BUILT_IN = "registration_unet"
RANGES: dict[str, Range] = {"widths": (1, LARGEST), "axes": (1, 3), "voxel_mm": (1e-3, 1e3)}
NO_NETWORK = "not a registration network; expected a file of scripts/train_registration.py"


class NetworkSettings(NamedTuple):
    """Settings of a registration network: its U-Net, and what it was trained on. Hashable."""

    widths: tuple[int, ...] = (32, 64, 96, 128)  # channels of each level
    axes: int = 3  # spatial axes of the images
    voxel_mm: float = 2.5  # voxel size of the training images
    about: str = ""  # description of the training

    @property
    def multiple(self) -> int:
        """Sides of images are multiples of this, or padded to them."""
        return 2 ** len(self.widths)


class TrainedNetwork(NamedTuple):
    """A trained registration network."""

    model: Network
    params: PyTree
    settings: NetworkSettings


def built_in(settings: NetworkSettings) -> Network:
    """The built-in network of these settings."""
    return build(BUILT_IN, {"widths": settings.widths})


def save(path: Path, network: TrainedNetwork) -> None:
    """Write a registration network to one npz file: parameters as float16 (a rounding of 5e-4), settings as JSON.

    Raises:
        ConfigError: the network is not the built-in one of its settings.
        DataError: a parameter is not finite.
        OSError: it cannot be written.
    """
    if network.model != built_in(network.settings):
        raise ConfigError(f"{path}: the network is not the {BUILT_IN} of its settings; expected that")
    save_weights(path, network.params, {"network": BUILT_IN, **network.settings._asdict()}, np.float16)


def load(path: Path | str) -> TrainedNetwork:
    """Read a registration network from a file that `save` wrote.

    Raises:
        DataError: there is no such file, it is none of a registration network, its settings are out of range, or it
            holds other weights than they say.
    """
    path = Path(path)
    params, header = load_weights(path)
    if header.pop("network", None) != BUILT_IN:
        raise DataError(f"{path}: {NO_NETWORK}")
    settings = read_settings(str(path), NetworkSettings, header, RANGES)
    if not settings.widths:
        raise DataError(f"{path}: no widths; {NO_NETWORK}")
    check_layers(str(path), {"widths": settings.widths}, len(jax.tree.leaves(params)))
    model = built_in(settings)
    like = initial_shapes(path, model, lambda: example_inputs(settings))
    return TrainedNetwork(model, fit_weights(path, params, like), settings)


def example_inputs(settings: NetworkSettings) -> tuple[jax.Array, jax.Array]:
    """Smallest example inputs of a network of these settings: a fixed and a moving image."""
    image = jnp.zeros((1, *(2 * settings.multiple,) * settings.axes))
    return image, image
