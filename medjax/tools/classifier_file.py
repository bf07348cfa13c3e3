"""Trained classifiers as files: weights, with the network's name and settings in the header, so that one is enough.

    save_classifier(path, params, "resnet", {"classes": 2, "depth": 10, …})
    model, params = load_classifier(path, images.shape[1:])

A network that medjax does not know is saved under a name of its user's, and has to be passed to `load_classifier`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from medjax.errors import ConfigError, DataError, type_and_message
from medjax.models.model import Network
from medjax.models.networks import NETWORKS, build, settings_of
from medjax.models.saved_settings import check_layers, short_repr
from medjax.models.weights import fit_weights, load_weights, save_weights
from medjax.running.network_part import network_part


def save_classifier(path: Path, params: PyTree, network: str, settings: Mapping[str, Any] | None = None) -> None:
    """Write a classifier's weights, float32, with the name of its network and, of a built-in one, its settings.

    Raises:
        ConfigError: no such settings of the built-in network.
        DataError: a weight is not finite, or its name cannot be kept.
        OSError: it cannot be written.
    """
    header: dict[str, Any] = {"network": network}
    if network in NETWORKS:
        header["settings"] = settings_of(network, settings or {})
        build(network, header["settings"])
    save_weights(path, params, header, np.float32)


def load_classifier(path: Path, shape: tuple[int, ...], network: Any = None) -> tuple[Network, PyTree]:
    """Network and weights of a file, for images of `shape` (*space, channel).

    `network` is a Model or a function of the header that makes one, a Part or not; it takes the place of the network
    that the file names, and is needed where medjax does not know that.

    Raises:
        ConfigError: the file names no network that medjax knows, and none is passed.
        DataError: there is none, it is no file of weights, its settings are out of range, the weights are another
            network's, or the network does not take such images.
    """
    params, header = load_weights(path)
    name = header.get("network")
    if network is not None:
        model = network_part(network, header).value
    elif isinstance(name, str) and name in NETWORKS and isinstance(header.get("settings"), dict):
        try:
            model = build(name, header["settings"])
        except ConfigError as error:
            raise DataError(f"{path}: {error}") from error
        check_layers(str(path), settings_of(name, header["settings"]), len(jax.tree.leaves(params)))
    else:
        raise ConfigError(
            f"{path}: network {short_repr(name)}; expected one of {', '.join(NETWORKS)}, or --network FILE.py:NAME"
        )
    one = jax.ShapeDtypeStruct((1, *shape), np.float32)
    try:
        like = jax.eval_shape(model.init, jax.random.key(0), one)
        logits = jax.eval_shape(model.apply, like, one)
    except Exception as error:  # whatever a network raises
        found = type_and_message(error)
        raise DataError(f"{path}: its network does not take images of {shape} (space, channel): {found}") from error
    if len(getattr(logits, "shape", ())) != 2:
        raise DataError(f"{path}: its network gives no logits (batch, class); expected a classifier")
    return model, fit_weights(path, params, like)
