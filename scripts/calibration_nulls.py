"""False-positive rates and power of the nulls of a correlation between smooth maps, at α = 0.05.

    python scripts/calibration_nulls.py [--fields 2000]

Fields on a grid: white noise through a Gaussian of σ cells, cropped from a larger image, so without periodicity. Rates
are of p ≤ 0.05 for two independent fields u and w; power is that for v = 0.6 u + 0.8 w. Permutations and torus shifts
are judged on all pairs, surrogates (199 a field) on a fifth of them.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import ndimage

from medjax.shortcuts.spatial_null import mirrored_shifts, null_p, permutations, torus_shifts
from medjax.shortcuts.surrogates import centroid_distances, geometry, surrogate_maps

MARGIN, SURROGATES, CORRELATION = 12, 199, 0.6


def smooth_fields(number: int, cells: tuple[int, int], sigma: float) -> np.ndarray:
    """Fields (2, number, region), standardised over the ensemble."""
    space = tuple(length + 2 * MARGIN for length in cells)
    noise = np.random.default_rng(0).normal(size=(2 * number, *space)).astype(np.float32)
    blurred = np.stack([ndimage.gaussian_filter(one, sigma) for one in noise])
    inner = blurred[:, MARGIN:-MARGIN, MARGIN:-MARGIN].reshape(2, number, -1)
    return inner / inner.std()


@partial(jax.jit, static_argnames="exact")
def rate(u: jax.Array, v: jax.Array, null: jax.Array, exact: bool = False) -> jax.Array:
    """Fraction of pairs with p ≤ 0.05."""
    return jnp.mean(lax.map(lambda pair: null_p(*pair, null, exact), (u, v)) <= 0.05)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=2000, help="Number of pairs of fields.")
    number = parser.parse_args().fields
    few = number // 5
    names = ("permutations", "torus shifts", "mirrored shifts", "surrogates", "surrogates, as published")
    print(f"| cells | σ | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for cells in ((7, 7), (14, 14), (16, 16)):
        regions = cells[0] * cells[1]
        space = geometry(centroid_distances(np.arange(regions).reshape(cells), regions))
        nulls = (permutations(jax.random.key(0), regions, 999), torus_shifts(cells), mirrored_shifts(cells))
        for sigma in (0.7, 1.0, 1.5, 2.5):
            u, w = smooth_fields(number, cells, sigma)
            pairs = (w, CORRELATION * u + np.float32((1 - CORRELATION**2) ** 0.5) * w)
            found = [[float(rate(u, v, null, row > 0)) for v in pairs] for row, null in enumerate(nulls)]
            for nonnegative in (True, False):
                count = np.zeros(2)
                for n in range(few):
                    maps = surrogate_maps(jax.random.key(n), u[n], space, SURROGATES, nonnegative=nonnegative)
                    count += [float(null_p(u[n], v[n], maps)) <= 0.05 for v in pairs]
                found.append(list(count / few))
            cell = " | ".join(f"{false:.3f} / {power:.2f}" for false, power in found)
            print(f"| {cells[0]}×{cells[1]} | {sigma} | {cell} |", flush=True)
    print(f"\nfalse-positive rate / power at r = {CORRELATION}; {number} pairs, surrogates {few}")


if __name__ == "__main__":
    main()
