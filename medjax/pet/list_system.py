"""List mode: the likelihood of single events, in the form that all algorithms for sinograms take.

The log-likelihood of E events is Σ log qₑ − Q, Q the expected counts of all lines of response, with events or without.
It is that of a sinogram of E + 1 bins: one count in each event's own bin, qₑ expected there, and none in the last one,
which stands for all the rest, Q − Σ qₑ expected. Of P x in the rest only ⟨s, x⟩ is needed, s the back-projection of all
lines' factors: no line without an event is ever traced.

Source: Barrett, White & Parra, Journal of the Optical Society of America A 14(11), 1997.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.pet import lor_projector
from medjax.pet.lor_system import LorSystem
from medjax.pet.system import AnyArray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ListSystem:
    """System model of events and, as the last bin, of all other lines of response."""

    lors: LorSystem  # of the events, and of padding that counts nothing
    factors: Float[AnyArray, "*stack event"]  # multiplicative factors of their lines
    sensitivity: Float[AnyArray, "*stack x y z"]  # Pᵀ m of all lines, before any point spread function
    shape: tuple[int, int, int] = field(metadata={"static": True})

    @property
    def sinogram_shape(self) -> tuple[int]:
        """Shape (events + 1,) of the counts."""
        return (self.factors.shape[-1] + 1,)


def project(system: ListSystem, image: Float[Array, "x y z"]) -> Float[Array, " bin"]:
    """Line integrals of the events' lines of response, and the factor-weighted ones of all the rest as the last bin."""
    integrals = lor_projector.project(system.lors, image)
    factors, sensitivity = (jnp.asarray(a, image.dtype) for a in (system.factors, system.sensitivity))
    rest = jnp.vdot(sensitivity, image, precision="highest") - jnp.vdot(factors, integrals, precision="highest")
    return jnp.concatenate([integrals, rest[None]])


def backproject(system: ListSystem, sinogram: Float[Array, " bin"]) -> Float[Array, "x y z"]:
    """The transpose of `project`."""
    rest = sinogram[-1]
    factors, sensitivity = (jnp.asarray(a, sinogram.dtype) for a in (system.factors, system.sensitivity))
    return lor_projector.backproject(system.lors, sinogram[:-1] - factors * rest) + sensitivity * rest
