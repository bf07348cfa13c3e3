"""Attribute projection: the direction in feature space that tells an attribute is removed from a trained classifier.

    projection = attribute_projection(train_features, train_attribute)      features: penultimate, (case, feature)
    logits = model.head(params, project(projection, model.features(params, images)))
    leakage(train_features, train_attribute, test_features, test_attribute)       AUROC of a new linear probe

The direction d, of length 1, is that of a linear probe (logistic regression) on standardised features ẑ, from which it
is removed: ẑ' = ẑ − d dᵀẑ, so that features of different scales count the same, and the mean stays where it is. Global
average pooling is linear: maps (…, channel) may be projected before it. The leakage of a new probe after the projection
tells what of the attribute is left in other directions; it need not be at chance.

Source: nullspace projection, Ravfogel et al., ACL 2020, its first iteration; a baseline of the published code of OSCAR.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medjax.errors import DataError
from medjax.metrics.detection import auroc

AnyArray = Array | np.ndarray
Features = Float[AnyArray, "case feature"]


class Projection(NamedTuple):
    """Projection z' = z − removed · (probe · (z − mean))."""

    probe: Float[Array, " feature"]  # d / standard deviation
    removed: Float[Array, " feature"]  # d · standard deviation
    mean: Float[Array, " feature"]


def attribute_projection(features: Features, attribute: Int[AnyArray, " case"], c: float | int = 1.0) -> Projection:
    """Projection that removes the direction of a linear probe of a binary attribute.

    Args:
        features: penultimate features: after global average pooling.
        attribute: 0 or 1.
        c: inverse strength of the probe's ridge penalty, on standardised features.

    Raises:
        DataError: features that are not finite, an attribute of other values or of one, or all features equal.
    """
    weights, mean, sd = _probe(features, attribute, c)
    length = np.linalg.norm(weights)
    if not length > 0:
        raise DataError("features: the probe's direction is 0; expected features that differ with the attribute")
    direction = weights / length
    return Projection(*(jnp.asarray(one, jnp.result_type(float)) for one in (direction / sd, direction * sd, mean)))


def project(projection: Projection, z: Float[AnyArray, "*case feature"]) -> Float[Array, "*case feature"]:
    """Features, or feature maps with the channel last, without the direction."""
    probe, removed, mean = (jnp.expand_dims(one, tuple(range(jnp.ndim(z) - 1))) for one in projection)
    values = jnp.asarray(z)
    return values - jnp.sum((values - mean) * probe, axis=-1, keepdims=True) * removed


def leakage(
    train_features: Features,
    train_attribute: Int[AnyArray, " case"],
    test_features: Float[AnyArray, "other feature"],
    test_attribute: Int[AnyArray, " other"],
    c: float | int = 1.0,
) -> float:
    """AUROC of the attribute on the test features, of a linear probe of the training features; 0.5 is chance.

    Raises:
        DataError: as `attribute_projection`.
    """
    weights, mean, sd = _probe(train_features, train_attribute, c)
    z, a = _check(test_features, test_attribute)
    return float(auroc(np.matmul((z - mean) / sd, weights), a == 1))


def _probe(features: AnyArray, attribute: AnyArray, c: float | int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights of the probe on standardised features, and the features' mean and standard deviation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    z, a = _check(features, attribute)
    scaler = StandardScaler().fit(z)
    probe = LogisticRegression(C=c, max_iter=1000).fit(scaler.transform(z), a)
    return probe.coef_[0], np.asarray(scaler.mean_), np.asarray(scaler.scale_)


def _check(features: AnyArray, attribute: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    z, a = np.asarray(features, float), np.asarray(attribute)
    if not np.isfinite(z).all():
        raise DataError(f"features: {np.sum(~np.isfinite(z))} NaN or infinite; expected finite numbers")
    if set(np.unique(a).tolist()) != {0, 1}:
        raise DataError(f"attribute: values {np.unique(a).tolist()[:4]}; expected both 0 and 1")
    return z, a
