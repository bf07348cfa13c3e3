"""PET acquisition: counts y ~ Poisson(q), q = m · S P G x + b, and the Poisson likelihood of an image.

    m  multiplicative factors (attenuation × normalisation × gaps × scale), one a bin
    P  projector, in mm;  G  image-space point spread function;  S  one along the sinogram (by default none)
    b  additive background (randoms + scatter), in counts

Functions and arrays of an acquisition can be replaced one by one (`dataclasses.replace`): another projector plugs in.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax.errors import DataError
from medjax.one_program import one_program
from medjax.pet import projection
from medjax.pet.projection import AnySystem, image_shape, subsets
from medjax.pet.psf import Psf, blur
from medjax.pet.sinogram_psf import SinogramPsf, blur_sinogram, blur_sinogram_adjoint

SMALLEST_VARIANCE = 0.1  # counts; the normal approximation of a Poisson count ends long before


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Acquisition:
    """Measured counts and their model q = m · S P G x + b.

    Arrays are data (traced, vmapped, sharded); functions are static. It is a `medjax.likelihood.Likelihood`
    (`expected`, `deviance`, `gradient`) with an `update`, a preconditioner and a proximal step of its own.
    """

    counts: Float[Array, "..."]
    multiplicative: Float[Array, "..."]
    additive: Float[Array, "..."]
    sensitivity: Float[Array, "*stack x y z"]  # Gᵀ Pᵀ Sᵀ m
    system: PyTree  # system model, argument of project and backproject
    psf: Psf | None = None
    project: Callable = field(default=projection.project, metadata={"static": True})
    backproject: Callable = field(default=projection.backproject, metadata={"static": True})
    sinogram_psf: SinogramPsf | None = None

    @one_program
    def forward(self, image: Float[Array, "x y z"]) -> Float[Array, "*bin"]:
        """Forward projection m · S P G x: the expected trues."""
        trues = self.project(self.system, blur(self.psf, image))
        return self.multiplicative * blur_sinogram(self.sinogram_psf, trues)

    @one_program
    def adjoint(self, sinogram: Float[Array, "*bin"]) -> Float[Array, "x y z"]:
        """Back-projection Gᵀ Pᵀ Sᵀ (m · y): the transpose of `forward`."""
        trues = blur_sinogram_adjoint(self.sinogram_psf, self.multiplicative * sinogram)
        return blur(self.psf, self.backproject(self.system, trues))

    @one_program
    def expected(self, image: Float[Array, "x y z"]) -> Float[Array, "*bin"]:
        """Expected counts q = m · S P G x + b."""
        return self.forward(image) + self.additive

    @one_program
    def log_likelihood(self, expected: Float[Array, "*bin"]) -> Scalar:
        """Poisson log-likelihood Σ y log q − q, without the constant Σ log y!; its gradient is finite at y = q = 0."""
        y = self.counts
        return jnp.sum(y * jnp.log(jnp.where(y > 0, expected, 1)) - expected)

    @one_program
    def deviance(self, expected: Float[Array, "*bin"]) -> Scalar:
        """Poisson deviance Σ q − y − y log(q / y): the log-likelihood's distance from its maximum, ≥ 0.

        In float32 it keeps the digits that the log-likelihood loses, whose large terms cancel.
        """
        y = self.counts
        excess = expected - y
        return jnp.sum(excess - y * jnp.log1p(divide(excess, y)))

    @one_program
    def gradient(self, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """Gradient of the log-likelihood, Aᵀ(y / q) − Aᵀ1."""
        return self.adjoint(divide(self.counts, self.expected(image))) - self.sensitivity

    @one_program
    def residual(self, expected: Float[Array, "*bin"]) -> Float[Array, "*bin"]:
        """Residual y − q."""
        return self.counts - expected

    @one_program
    def precision(self, expected: Float[Array, "*bin"]) -> Float[Array, "*bin"]:
        """Inverse variance of each count in the Gaussian approximation, 1 / max(q, 0.1)."""
        return 1 / jnp.maximum(expected, SMALLEST_VARIANCE)

    @one_program
    def precondition(self, image: Float[Array, "x y z"], direction: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """EM preconditioner x / Aᵀ1 · direction: with the gradient as direction, the EM step."""
        return divide(image, self.sensitivity) * direction

    @one_program
    def update(
        self, image: Float[Array, "x y z"], expected: Float[Array, "*bin"] | None = None
    ) -> Float[Array, "x y z"]:
        """One EM update of `image`: see `em_update`. Its expected counts, if known, save a projection."""
        return em_update(self, image, self.expected(image) if expected is None else expected)

    @one_program
    def proximal(
        self,
        image: Float[Array, "x y z"],
        anchor: Float[Array, "x y z"],
        weight: Float[Array, "..."] | float,
        expected: Float[Array, "*bin"] | None = None,
    ) -> Float[Array, "x y z"]:
        """Proximal update: one monotone step on log-likelihood − ½ Σ weight (x − anchor)²: see `de_pierro_update`."""
        return de_pierro_update(self.update(image, expected), self.sensitivity, anchor, weight)


@one_program
def expected_deviance(expected: Float[Array, "..."]) -> Scalar:
    """Expected Poisson deviance of counts from their own mean: that of the true image.

    Σ E[q − y − y log(q / y)], y ~ Poisson(q): by its sum for q < 25, by ½ + 1 / (12 q) above, about ½ a bin.
    """
    y = jnp.arange(80, dtype=expected.dtype)
    log_factorial = jax.scipy.special.gammaln(y + 1)

    def small(q: Array) -> Array:
        q = jnp.maximum(q, 1e-12)
        terms = jnp.exp(y * jnp.log(q) - q - log_factorial)
        return jnp.sum(terms * (q - y - y * jnp.log(q / jnp.maximum(y, 1))))

    flat = expected.reshape(-1)
    exact = jax.lax.map(small, jnp.minimum(flat, 25), batch_size=8192)
    return jnp.sum(jnp.where(flat < 25, exact, 0.5 + 1 / (12 * jnp.maximum(flat, 25))))


@one_program
def em_update(
    acquisition: Acquisition, image: Float[Array, "x y z"], expected: Float[Array, "*bin"]
) -> Float[Array, "x y z"]:
    """EM update x / Aᵀ1 · Aᵀ(y / q), given q of that image. Voxels that no line of response crosses become zero.

    Source: Shepp & Vardi, IEEE Transactions on Medical Imaging 1(2), 1982.
    """
    update = acquisition.adjoint(divide(acquisition.counts, expected))
    return divide(image, acquisition.sensitivity) * update


@one_program
def de_pierro_update(
    em: Float[Array, "*space"],
    sensitivity: Float[Array, "*space"],
    anchor: Float[Array, "*space"],
    weight: Float[Array, "..."] | float,
) -> Float[Array, "*space"]:
    """De Pierro's MAP-EM update: argmax over z ≥ 0 of s (em · log z − z) − ½ weight (z − anchor)².

    With B = s − weight · anchor and R = √(B² + 4 weight s em): z = 2 s em / (B + R) where B > 0, else (R − B) / (2
    weight); the textbook form (R − B) / (2 weight) cancels in float32 where B > 0. A weight of 0 gives `em`; a
    sensitivity of 0 gives the anchor, or 0 where the weight is 0 too.

    Source: De Pierro, IEEE Transactions on Medical Imaging 14(1), 1995, in a form that float32 can evaluate.
    """
    weight = jnp.broadcast_to(jnp.asarray(weight, em.dtype), em.shape)
    linear = sensitivity - weight * anchor
    square = linear**2 + 4 * weight * sensitivity * em
    root = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)  # whose gradient at 0 is 0, not NaN
    rising = linear > 0
    numerator = jnp.where(rising, 2 * sensitivity * em, root - linear)
    return divide(numerator, jnp.where(rising, linear + root, 2 * weight))


def acquire(
    system: AnySystem,
    counts: Float[Array, "*bin"],
    multiplicative: Float[Array, "..."] | float = 1.0,
    additive: Float[Array, "..."] | float = 0.0,
    psf: Psf | None = None,
    sinogram_psf: SinogramPsf | None = None,
) -> Acquisition:
    """Acquisition of counts with its sensitivity image (one back-projection); factors are broadcast to the counts.

    Args:
        system: system model of the projector.
        counts: prompts.
        multiplicative: factors, attenuation × normalisation × gaps × scale.
        additive: expected randoms + scatter, in counts.
        psf: image-space point spread function; None: none.
        sinogram_psf: point spread function along the sinogram; None: none.

    Raises:
        DataError: shapes do not fit the system, or a value is negative or not finite.
    """
    image = image_shape(system, counts.shape)
    if psf is not None and (voxels := tuple(axis.shape[0] for axis in (psf.x, psf.y, psf.z))) != image:
        raise DataError(f"psf: of {voxels} voxels; the image has {image}")
    factors = _broadcast("multiplicative", multiplicative, counts)
    background = _broadcast("additive", additive, counts)
    for name, values in (("counts", counts), ("multiplicative", factors), ("additive", background)):
        check_counts(name, values)
    if sinogram_psf is not None:
        sinogram_psf.check_shape(counts.shape)
    zero = jnp.zeros(image, counts.dtype)
    empty = Acquisition(counts, factors, background, zero, system, psf, sinogram_psf=sinogram_psf)
    return replace(empty, sensitivity=empty.adjoint(jnp.ones_like(counts)))


def _broadcast(name: str, values: Array | float, counts: Array) -> Array:
    array = jnp.asarray(values, counts.dtype)
    try:
        return jnp.broadcast_to(array, counts.shape)
    except ValueError:
        raise DataError(f"{name}: shape {array.shape}; the counts have {counts.shape}") from None


def check_counts(name: str, values: Float[Array, "..."]) -> None:
    """Check that counts, factors or background are finite and non-negative.

    Raises:
        DataError: a value is negative or not finite.
    """
    invalid = int(_number_invalid(values))
    if invalid:
        raise DataError(
            f"{name}: {invalid} of {values.size} values are negative or not finite; expected finite values ≥ 0"
        )


@one_program
def _number_invalid(values: Array) -> Array:
    return jnp.sum(~(jnp.isfinite(values) & (values >= 0)))


def ordered_subsets(acquisition: Acquisition, number: int) -> Acquisition:
    """Ordered subsets: `number` interleaved subsets of the views along a leading axis, each with its sensitivity.

    Subset k is `select_subset(stacked, k)`.

    Raises:
        ConfigError: the number of subsets does not divide the views.
    """
    system, views = subsets(acquisition.system, number)
    names = ("counts", "multiplicative", "additive")
    parts: dict[str, PyTree] = {name: getattr(acquisition, name)[views] for name in names}
    kernels = {name: getattr(acquisition, name) for name in ("psf", "sinogram_psf")}
    parts |= jax.tree.map(lambda a: jnp.broadcast_to(a, (number, *a.shape)), kernels)
    empty = jnp.zeros((number, *acquisition.sensitivity.shape), acquisition.counts.dtype)
    stacked = replace(acquisition, **parts, sensitivity=empty, system=system)
    return replace(stacked, sensitivity=_sensitivities(stacked))


@one_program
def _sensitivities(stacked: Acquisition) -> Float[Array, "subset x y plane"]:
    return jax.lax.map(lambda one: one.adjoint(jnp.ones_like(one.counts)), stacked)


@one_program
def select_subset(stacked: Acquisition, subset: Int[Array, ""] | int) -> Acquisition:
    """One subset of `ordered_subsets`.

    Raises:
        DataError: the acquisition has no subsets.
    """
    require_subsets(stacked)
    return jax.tree.map(lambda a: a[subset], stacked)


def require_subsets(stacked: Acquisition) -> None:
    """Check that an acquisition is the result of `ordered_subsets`.

    Raises:
        DataError: the acquisition has no subsets.
    """
    if stacked.sensitivity.ndim != 4:
        raise DataError("acquisition: without subsets; expected the result of ordered_subsets (1 subset for MLEM)")


def divide(numerator: Float[Array, "*shape"], denominator: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Safe division: numerator / denominator, and 0 where the denominator is not positive (safe to differentiate)."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0)
