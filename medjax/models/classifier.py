"""Classifier: features of an encoder, their mean over the image, and a dense layer of logits.

model = from_flax(Classifier(2, encoder))    encoder: a module named "features", images → (batch, *coarse, channel)
z = model.features(params, x)                the encoder's last feature map
logits = model.head(params, z)               (batch, class)
"""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from medjax.models.layers import Dense, Function, global_average


class Classifier(nn.Module):
    """Encoder and head of a classifier; parameters of the `encoder` have its name, those of the dense layer "head"."""

    classes: int
    encoder: nn.Module
    average: Function = global_average  # (batch, *coarse, channel) → (batch, channel)
    dropout: float = 0.0  # probability that a channel of the mean is dropped
    preserve_adopted_names: ClassVar[bool] = True  # the encoder's own name, not its field's
    layerwise: ClassVar[bool] = True  # all it computes is in layers and functions that propagate relevance

    def features(self, x: Float[Array, "batch *space channel"]) -> Float[Array, "batch *coarse c"]:
        """Last feature map of the encoder: the input of the head."""
        return self.encoder(x)

    @nn.compact
    def head(self, z: Float[Array, "batch *coarse c"]) -> Float[Array, "batch class"]:
        """Logits: a dense layer of the features' mean over the image."""
        mean = self.average(z)
        if self.dropout and self.has_rng("dropout"):
            mean = nn.Dropout(self.dropout, deterministic=False)(mean)
        return Dense(self.classes, name="head")(mean)

    def __call__(self, x: Float[Array, "batch *space channel"]) -> Float[Array, "batch class"]:
        """Logits."""
        return self.head(self.features(x))
