"""File of a prior: weights as float16, its settings, and its network's name, by which the network is built again.

A network that medjax does not know is saved under its user's name with the digest of its source, and passed to
`load_prior` again.
"""

import math
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import defaults
from medjax.diffusion.prior import Prior, PriorSettings
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError, type_and_message
from medjax.models import build
from medjax.models.model import Network
from medjax.models.saved_settings import LARGEST, Range, check_layers, parse_setting, read_settings, short_repr
from medjax.models.weights import fit_weights, initial_shapes, load_weights, save_weights
from medjax.running.config import did_you_mean
from medjax.running.network_part import network_part
from medjax.running.parts import Part

SHIPPED_PRIORS = defaults.PRIORS  # `weights/<name>.npz`
BUILT_IN = "score_unet"  # the network of files that name none
OLD_KEYS = {"guided": "mr_guided"}  # keys of settings in files of earlier versions
RANGES: dict[str, Range] = {  # of settings, or of their elements
    "widths": (1, LARGEST),
    "blocks": (1, 64),
    "attention": (0, 15),
    "patch": (1, 16),
    "size": (1, 4096),
    "voxel_mm": (1e-3, 1e3),
    "orientations": (0, 2),
    "beta_min": (0, 1e3),
    "beta_max": (1e-3, 1e3),
}
OLD_SETTINGS: dict[str, Any] = {"patch": 1}  # settings that earlier versions had no key for


def example_inputs(settings: PriorSettings) -> tuple[Array, ...]:
    """Smallest example inputs of a network with these settings: slices, level, orientation, and MR if any."""
    side = 2 * settings.multiple
    small = jnp.zeros((1, side, side, 1))
    return small, jnp.zeros(1), jnp.zeros((1, 3)), *([small] if settings.mr_guided else [])


def prior_network(network: Any, settings: PriorSettings) -> Part:
    """A network, or a function of the prior's settings that returns one, as a checked Part.

    Raises:
        ConfigError: it is not one, fails on slices, or returns another shape.
    """
    part, inputs = network_part(network, settings), example_inputs(settings)
    try:
        shapes = jax.eval_shape(part.value.init, jax.random.key(0), *inputs)
        output = jax.eval_shape(part.value.apply, shapes, *inputs)
    except Exception as error:  # whatever a user's network raises
        expected = f"a Model of {len(inputs)} inputs: slices, level, orientation{', MR' if settings.mr_guided else ''}"
        raise ConfigError(f"--network {part.name}: {type_and_message(error)}; expected {expected}") from error
    if getattr(output, "shape", None) != inputs[0].shape:
        shape = getattr(output, "shape", type(output).__name__)
        raise ConfigError(f"--network {part.name}: {shape} from slices of {inputs[0].shape}; expected their shape")
    return part


def save_prior(path: Path, prior: Prior, network: str = BUILT_IN, sha256: str = "") -> None:
    """Write a prior to one npz file: parameters as float16 (a rounding of 5e-4), settings and network name as JSON.

    Another network than the built-in one of these settings needs a name of its own, and `sha256`, the digest of its
    source, if another one is to be refused when the file is read.

    Raises:
        ConfigError: the network is not the one of this name.
        DataError: a parameter is not finite, or its name cannot be kept.
        OSError: it cannot be written.
    """
    if network == BUILT_IN and prior.model != _built_in(prior.settings):
        raise ConfigError(
            f"{path}: the prior's network is not the {BUILT_IN} of its settings; expected another name: network=…"
        )
    header = prior.settings._asdict() | {"sigma_data": float(prior.sigma_data), "network": network}
    header |= {"sha256": sha256} if sha256 else {}
    save_weights(path, prior.params, header, np.float16)


def load_prior(prior: Path | str | None = None, model: Any = None) -> Prior:
    """Read a prior: one that comes with medjax, by its name, or a file of `medjax pet train-prior`; None: `noise_free`.

    Shipped are priors of noise-free images (`noise_free`), of OSEM images at full counts (`osem`), and of noise-free
    images without lesions (`without_lesions`); their card: `weights/priors.md`.

    A `model`, or a function of the prior's settings that returns one, a Part or not, takes the place of the network
    that the file names; a network that medjax does not know must be passed, the same as was saved.

    Raises:
        ConfigError: no prior has that name; or the file's network is not one of medjax and there is no `model`, or that
            is another one.
        DataError: there is no such file, it is not a prior, its settings are out of range, or it holds weights of
            another network.
    """
    name = SHIPPED_PRIORS[0] if prior is None else str(prior)
    path = Path(name)
    if name in SHIPPED_PRIORS:
        with as_file(files("medjax.diffusion").joinpath(f"weights/{name}.npz")) as shipped:
            return _load(shipped, model)
    if name == path.name and not path.suffix and not path.exists():
        close = did_you_mean(name, SHIPPED_PRIORS)
        raise ConfigError(f"prior {name}: no such name; expected {', '.join(SHIPPED_PRIORS)}, or a file{close}")
    return _load(path, model)


def _built_in(settings: PriorSettings) -> Network:
    return build(BUILT_IN, {name: getattr(settings, name) for name in ("widths", "blocks", "attention", "patch")})


def _load(path: Path, model: Any) -> Prior:
    try:
        params, header = load_weights(path)
        sigma_data, settings = _settings(path, header, len(jax.tree.leaves(params)))
    except DataError as error:
        found = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: not a score prior that `medjax pet train-prior` wrote: {found}") from error
    network, kept = header["network"], header["sha256"]
    if model is None and network != BUILT_IN:
        how = "load_prior(path, model), or --network FILE.py:NAME"
        raise ConfigError(f"{path}: its network is {network!r}, not one of medjax; pass it: {how}")
    if model is None:
        chosen = _built_in(settings)
    else:
        part = prior_network(model, settings)
        chosen, sha256 = part.value, part.sha256
        if len(sha256) == len(kept) and sha256 != kept:  # of one kind: digests of files, or of objects
            raise ConfigError(f"{path}: trained with {network} of SHA-256 {kept[:8]}…; this one has {sha256[:8]}…")
    params = fit_weights(path, params, initial_shapes(path, chosen, lambda: example_inputs(settings)))
    return Prior(params, sigma_data, vp(settings.beta_min, settings.beta_max), chosen, settings)


def _settings(path: Path, header: dict[str, Any], arrays: int) -> tuple[float, PriorSettings]:
    """Width of the data and settings of a prior from its header, checked; its `network` and `sha256` stay in it.

    Raises:
        DataError: one is missing, unknown, of another type or out of range, or there are fewer arrays than layers.
    """
    own = {OLD_KEYS.get(key, key): value for key, value in header.items()}
    named = {"network": BUILT_IN, "sha256": ""} | {key: own.pop(key) for key in ("network", "sha256") if key in own}
    if odd := [key for key, value in named.items() if not isinstance(value, str)]:
        raise DataError(f"{path}: {odd[0]} {short_repr(named[odd[0]])}; expected text")
    header |= named
    sigma_data = own.pop("sigma_data", own.pop("spread", None))
    try:
        sigma_data = parse_setting(sigma_data, float)
    except ConfigError as error:
        raise DataError(f"{path}: sigma_data {error}") from error
    if not (math.isfinite(sigma_data) and sigma_data > 0):
        raise DataError(f"{path}: sigma_data {sigma_data:g}; expected above 0")
    settings = read_settings(str(path), PriorSettings, OLD_SETTINGS | own, RANGES)
    if not settings.widths or not settings.orientations:
        raise DataError(f"{path}: no widths or no orientations; expected one or more")
    if settings.beta_max < settings.beta_min:
        raise DataError(f"{path}: beta_max {settings.beta_max:g}; expected beta_min, {settings.beta_min:g}, or more")
    if named["network"] == BUILT_IN:
        check_layers(str(path), {key: getattr(settings, key) for key in ("widths", "blocks", "attention")}, arrays)
    return sigma_data, settings
