"""What can be audited: data, network and scores are checked before a training whose dynamics are to be read."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from medjax.errors import ConfigError, DataError
from medjax.labels import scores
from medjax.labels.dynamics import Settings
from medjax.labels.probe import Probe, image_losses
from medjax.labels.scores import LabelScore
from medjax.models.model import Network, finest_logits

RIDING = ("loss",)  # the gradients that a training step has anyway
Images = Float[np.ndarray, "image *space channel"]
ImageLabels = Int[np.ndarray, "image *space"]


def check_run(
    model: Network,
    images: Images,
    labels: ImageLabels,
    settings: Settings,
    label_scores: Mapping[str, LabelScore] | None,
    probe: str,
) -> dict[str, LabelScore]:
    """The scores to keep track of, by default all built-in ones that this kind of probe allows, if all can be done.

    Raises:
        ConfigError, DataError: as `audit.training_dynamics`.
    """
    chosen = _chosen(label_scores, probe)
    _check_data(images, labels, settings)
    check_network(model, images, settings.classes)
    _check_scores(chosen, labels, settings.classes)
    return chosen


def check_network(model: Network, images: Images, classes: int) -> None:
    """Pass a network that gives logits of these classes for these images; nothing is computed.

    Raises:
        DataError: it does not take images of that size, or gives something else.
    """
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    try:
        params = jax.eval_shape(model.init, jax.random.key(0), one)
        found = jax.eval_shape(partial(finest_logits, model), params, one)
    except Exception as error:  # whatever a user's network raises
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise DataError(f"the network does not take images of {images.shape[1:]} (space, channel): {reason}") from error
    shape, wanted = getattr(found, "shape", f"a {type(found).__name__}"), (1, *images.shape[1:-1], classes)
    if shape != wanted:
        raise DataError(f"the network gives {shape} for an image of {images.shape[1:]}; expected {wanted}")


def _check_data(images: np.ndarray, labels: np.ndarray, s: Settings) -> None:
    if len(images) < s.batch:
        raise DataError(f"{len(images)} images; expected at least a batch of {s.batch}")
    if labels.min() < 0 or labels.max() >= s.classes:
        raise DataError(f"labels from {labels.min()} to {labels.max()}; expected 0 to {s.classes - 1}")
    if not (images.min() >= -0.01 and images.max() <= 1.01):
        raise DataError(f"images from {images.min():.3g} to {images.max():.3g}; expected about 0 to 1")


def _chosen(label_scores: Mapping[str, LabelScore] | None, kind: str) -> dict[str, LabelScore]:
    if label_scores is None:
        return scores.built_in(readings=RIDING) if kind == "riding" else scores.built_in()
    lacking = [name for name, score in label_scores.items() if not set(score.readings) <= set(RIDING)]
    if kind == "riding" and lacking:
        wanted = sorted(set(scores.readings_of({name: label_scores[name] for name in lacking})) - set(RIDING))
        raise ConfigError(
            f"scores {', '.join(lacking)} need the gradients {', '.join(wanted)}; riding probes have {RIDING[0]} only"
        )
    return dict(label_scores)


def _check_scores(chosen: Mapping[str, LabelScore], labels: np.ndarray, classes: int) -> None:
    """Trace every score once, with the gradients that it names."""
    one, space = (1, *labels.shape[1:]), labels.shape[1:]

    def updated(score: LabelScore) -> Any:
        outputs, given = jnp.zeros((*one, classes)), jnp.zeros(one, jnp.int32)
        gradients = {name: jnp.zeros(one) for name in score.readings}
        seen = Probe(outputs, given, image_losses(outputs, given), gradients)
        return score.update(score.init(len(labels), space), jnp.zeros(1, jnp.int32), seen)

    for name, score in chosen.items():
        try:
            jax.eval_shape(partial(updated, score))
        except KeyError as error:
            raise ConfigError(
                f"score {name} looks at {error} of a probe; expected some of its readings {score.readings}"
            ) from error
