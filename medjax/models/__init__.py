"""Networks: Flax modules whose only variables are `params`, as `Model`s for the rest, which imports no Flax."""

from medjax.models.model import Model, from_flax, require
from medjax.models.networks import build

__all__ = ["Model", "build", "from_flax", "require"]
