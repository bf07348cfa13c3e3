"""Accuracy of the projector against closed-form line integrals: a disc and four ellipses, parallel beams and a ring.

    python scripts/accuracy_projector.py

Images are area averages of the shapes (value 1, pixels of 1 or 2 mm), so what is left is the error of Joseph's
interpolation and of the pixels. Errors are absolute, over the lines that cross the shape, as a fraction of its longest
chord; SciPy's product with Joseph's matrix stands beside.
"""

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from medjax.pet.grid import Grid
from medjax.pet.projector import project
from medjax.pet.scanner import lors, parallel_lors, preset
from medjax.pet.system import build_system
from tests.pet.oracle import ELLIPSES, ellipse_image, ellipse_integrals, joseph_matrix

DISC = ((0.0, 0.0, 0.78, 0.78, 0.0, 1.0),)
GEOMETRIES = {
    "parallel 180×128, 128²": (parallel_lors(180, 128, 1.0), 128, 1.0),
    "parallel 360×367, 256²": (parallel_lors(360, 367, 1.0), 256, 1.0),
    "mMR ring 252×344, 128² of 2.09 mm": (lors(preset("mmr")), 128, 2.08625),
    "mMR ring 252×344, 256² of 1.04 mm": (lors(preset("mmr")), 256, 1.043125),
}


def errors(projected: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95th percentile of |error| over the longest chord, and ‖error‖ / ‖truth‖; lines that cross the shape."""
    hit = np.abs(truth) > 0
    error = np.abs(projected - truth)[hit] / np.abs(truth).max()
    return (
        float(error.mean()),
        float(np.percentile(error, 95)),
        float(np.linalg.norm(projected - truth) / np.linalg.norm(truth)),
    )


def main() -> None:
    """Print the table."""
    table = Table(
        "lines and grid", "shape", "mean error", "95th percentile", "relative L2", "the same by SciPy's Joseph"
    )
    for name, (ends, size, voxel_mm) in GEOMETRIES.items():
        grid = Grid((size, size, 1), (voxel_mm, voxel_mm, 1.0))
        system, matrix = build_system(ends, grid), joseph_matrix(ends, grid)
        for shape, ellipses in (("disc", DISC), ("ellipses", ELLIPSES)):
            image = ellipse_image(size, voxel_mm, ellipses, supersampling=16)
            truth = ellipse_integrals(ends, size * voxel_mm / 2, ellipses)
            ours = np.asarray(jax.jit(project)(system, jnp.asarray(image[..., None], jnp.float32)))[..., 0]
            peer = (matrix @ image.ravel()).reshape(truth.shape)
            shown = [f"{value:.2%}" for value in (*errors(ours, truth), *errors(peer, truth))]
            table.add_row(name, shape, *shown[:3], " / ".join(shown[3:]))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
