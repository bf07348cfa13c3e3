"""Checks of data, network and label scores before a training whose dynamics are tracked."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from medjax.errors import ConfigError, DataError
from medjax.labels import scores
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.probe import Probe, image_losses
from medjax.labels.scores import LabelScore
from medjax.models.model import Network, check_network

IN_STEP_GRADIENTS = ("loss",)  # gradients of a training step's own backward pass
Images = Float[np.ndarray, "image *space channel"]
ImageLabels = Int[np.ndarray, "image *space"]


def check_run(
    model: Network,
    images: Images,
    labels: ImageLabels,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore] | None,
    probe: str,
) -> dict[str, LabelScore]:
    """Checked label scores of a run; by default all built-in ones that this kind of probe allows.

    Raises:
        ConfigError, DataError: as `audit.training_dynamics`.
    """
    chosen = _chosen(label_scores, probe)
    _check_data(images, labels, settings)
    check_network(model, images.shape[1:], settings.classes)
    _check_scores(chosen, labels, settings.classes)
    return chosen


def _check_data(images: np.ndarray, labels: np.ndarray, s: TrainingSettings) -> None:
    if len(images) < s.batch:
        raise DataError(f"{len(images)} images; expected at least a batch of {s.batch}")
    if labels.min() < 0 or labels.max() >= s.classes:
        raise DataError(f"labels from {labels.min()} to {labels.max()}; expected 0 to {s.classes - 1}")
    if not (images.min() >= -0.01 and images.max() <= 1.01):
        raise DataError(f"images from {images.min():.3g} to {images.max():.3g}; expected about 0 to 1")


def _chosen(label_scores: Mapping[str, LabelScore] | None, kind: str) -> dict[str, LabelScore]:
    if label_scores is None:
        return scores.built_in(gradients=IN_STEP_GRADIENTS) if kind == "in_step" else scores.built_in()
    lacking = [name for name, score in label_scores.items() if not set(score.gradients) <= set(IN_STEP_GRADIENTS)]
    if kind == "in_step" and lacking:
        wanted = {each for name in lacking for each in label_scores[name].gradients} - set(IN_STEP_GRADIENTS)
        raise ConfigError(
            f"scores {', '.join(lacking)} need the gradients {', '.join(sorted(wanted))}; "
            f"in-step probes have {IN_STEP_GRADIENTS[0]} only"
        )
    return dict(label_scores)


def _check_scores(chosen: Mapping[str, LabelScore], labels: np.ndarray, classes: int) -> None:
    """Trace every score once, with the gradients of a probe that it names."""
    one, space = (1, *labels.shape[1:]), labels.shape[1:]

    def trace(score: LabelScore) -> Any:
        outputs, given = jnp.zeros((*one, classes)), jnp.zeros(one, jnp.int32)
        gradients = {name: jnp.zeros(one) for name in score.gradients}
        seen = Probe(outputs, given, image_losses(outputs, given), gradients)
        return score.update(score.init(len(labels), space), jnp.zeros(1, jnp.int32), seen)

    for name, score in chosen.items():
        try:
            jax.eval_shape(partial(trace, score))
        except KeyError as error:
            raise ConfigError(
                f"score {name} looks at {error} of a probe; expected some of its gradients {score.gradients}"
            ) from error
