"""The file of a prior: weights as float16, and its settings, from which its network is made again."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax.diffusion.prior import Prior, Settings
from medjax.diffusion.sde import vp
from medjax.errors import DataError
from medjax.models import build
from medjax.models.model import Network
from medjax.models.weights import load_weights, save_weights

SHIPPED = "weights/brain.npz"


def network(settings: Settings) -> Network:
    """The network of these settings: what a file of a prior, and training that makes one, are about."""
    return build("score_unet", {name: getattr(settings, name) for name in ("widths", "blocks", "attention")})


def examples(settings: Settings) -> tuple[Array, ...]:
    """Inputs of the least size that the network of these settings takes: slices, level, orientation and MR if any."""
    side = 2 * settings.multiple
    small = jnp.zeros((1, side, side, 1))
    return small, jnp.zeros(1), jnp.zeros((1, 3)), *([small] if settings.guided else [])


def save_prior(path: Path, prior: Prior) -> None:
    """Write one npz file: parameters as float16 (a rounding of 5e-4), settings as JSON.

    Raises:
        DataError: a parameter is not finite.
        OSError: it cannot be written.
    """
    header = prior.settings._asdict() | {"sigma_data": float(prior.sigma_data)}
    save_weights(path, prior.params, header, np.float16)


def load_prior(path: Path | None = None) -> Prior:
    """The prior in `path`, or the brain prior that comes with medjax (its card: `weights/brain.md`).

    Raises:
        DataError: the file is no prior.
        FileNotFoundError: there is none.
    """
    if path is not None:
        return _load(path)
    with as_file(files("medjax.diffusion").joinpath(SHIPPED)) as shipped:
        return _load(shipped)


def _load(path: Path) -> Prior:
    no_prior = f"{path}: no score prior; expected a file that `medjax pet train-prior` wrote"
    try:
        _, header = load_weights(path)
        sigma_data = float(header.pop("sigma_data") if "sigma_data" in header else header.pop("spread"))
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header.items()}
        settings = Settings(**given)
        model = network(settings)
        like = jax.eval_shape(model.init, jax.random.key(0), *examples(settings))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{no_prior}: {error}" if isinstance(error, DataError) else no_prior) from error
    params, _ = load_weights(path, like)
    return Prior(params, sigma_data, vp(settings.beta_min, settings.beta_max), model, settings)
