"""Displacement fields in voxels of their own grid, and what they do to images, labels and points.

A field u, component first, takes x to x + u(x). Images are pulled back, warped(x) = image(x + u(x)), so that points of
the warped (fixed) image are taken to the other (moving) one by `transform_points`; 2-D and 3-D alike.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from medjax.interpolation import sample, sample_nearest


def identity(shape: tuple[int, ...]) -> Float[Array, "dim *space"]:
    """Voxel coordinates of every voxel of a grid."""
    return jnp.stack(jnp.meshgrid(*(jnp.arange(side, dtype=jnp.float32) for side in shape), indexing="ij"))


def warp(
    image: Float[Array, "*old"], displacement: Float[Array, "dim *space"], *, outside: float | None = None
) -> Float[Array, "*space"]:
    """Warped image, image(x + u(x)), interpolated linearly.

    `outside` is the value where x + u(x) is outside the image; None repeats its edge values.
    """
    return sample(image[None], _target(displacement), outside=outside)[0]


def warp_channels(
    images: Float[Array, "channel *old"], displacement: Float[Array, "dim *space"], *, outside: float | None = None
) -> Float[Array, "channel *space"]:
    """Warped images of one grid, as `warp` has it; indices and weights are computed once for all."""
    return sample(images, _target(displacement), outside=outside)


def warp_labels(
    labels: Shaped[Array, "*old"], displacement: Float[Array, "dim *space"], *, outside: int | float | None = None
) -> Shaped[Array, "*space"]:
    """Warped labels: the label of the voxel nearest to x + u(x); `outside` as in `warp`."""
    return sample_nearest(labels[None], _target(displacement), outside=outside)[0]


def compose(first: Float[Array, "dim *space"], then: Float[Array, "dim *space"]) -> Float[Array, "dim *space"]:
    """Composed field of two warps of an image, `first` and then `then`: w(x) = v(x) + u(x + v(x)).

    warp(warp(image, u), v) = warp(image, compose(u, v)) up to interpolation; points go through v before u. Beyond its
    edge a field is continued by its values there.
    """
    return then + sample(first, _target(then))


def invert(displacement: Float[Array, "dim *space"], iterations: int = 20) -> Float[Array, "dim *space"]:
    """Inverse field by fixed-point iteration, v ← −u(x + v(x)).

    Converges where no eigenvalue of ∂u/∂x exceeds 1, in about log(0.01) / log(‖∂u/∂x‖) iterations to a hundredth.

    Source: Chen et al., Medical Physics 35(1), 2008.
    """
    points = identity(displacement.shape[1:])

    def iterate(inverse: Array, _: None) -> tuple[Array, None]:
        return -sample(displacement, points + inverse), None

    return jax.lax.scan(iterate, -displacement, length=iterations)[0]


def jacobian(displacement: Float[Array, "dim *space"]) -> Float[Array, "dim axis *space"]:
    """Jacobian matrix ∂(x + u)_i/∂x_j by central differences, one-sided at the edges; the identity along axes of 1."""
    rows = [
        jnp.stack([_slope(component, j) + float(i == j) for j in range(component.ndim)])
        for i, component in enumerate(displacement)
    ]
    return jnp.stack(rows)


def jacobian_determinant(displacement: Float[Array, "dim *space"]) -> Float[Array, "*space"]:
    """Determinant of ∂(x + u)/∂x: local change of volume; at most 0 where the field folds."""
    matrix = jacobian(displacement)
    if len(displacement) == 2:
        (a, b), (c, d) = matrix
        return a * d - b * c
    if len(displacement) == 3:
        (a, b, c), (d, e, f), (g, h, i) = matrix
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return jnp.linalg.det(jnp.moveaxis(matrix, (0, 1), (-2, -1)))


def transform_points(
    displacement: Float[Array, "dim *space"], points: Float[Array, "number dim"]
) -> Float[Array, "number dim"]:
    """Points x + u(x), in voxels: where landmarks of the warped (fixed) image are in the image before warping."""
    return points + sample(displacement, points.T).T


def _slope(component: Array, axis: int) -> Array:
    if component.shape[axis] == 1:
        return jnp.zeros_like(component)
    slope = jnp.gradient(component, axis=axis)
    return slope if isinstance(slope, jax.Array) else slope[0]


def _target(displacement: Array) -> Array:
    return identity(displacement.shape[1:]) + displacement
