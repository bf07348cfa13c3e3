"""A new experiment: the error of MLEM against the number of iterations, at several count levels.

An experiment is this docstring and `run`; its numbers are in the config of the same name. Replace what it computes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medjax import iterate
from medjax.pet import acquisition, em, grid, projector, scanner, system
from medjax.report.figures import curves
from medjax.report.html import Figure, Report, Section, Table
from medjax.running.experiment import Result, run_module
from medjax.running.workdir import WorkDir, save_figure, stage


def run(config: ConfigDict, work: WorkDir) -> Result:
    """Reconstruct at every count level; a stage that is finished is not computed again."""
    errors: dict[str, np.ndarray] = {}
    for level in config.levels:
        compute = partial(reconstruct, config.seed, config.size, level, config.iterations)
        errors[f"{level:g} counts a line"] = stage(work, f"level_{level:g}", compute)["errors"]
    metrics = {
        f"nrmse/{level:g}": float(curve[-1]) for level, curve in zip(config.levels, errors.values(), strict=True)
    }
    table = Table(("count level", "lowest NRMSE", "NRMSE at the end"), [[n, c.min(), c[-1]] for n, c in errors.items()])
    drawn = curves(np.arange(1, config.iterations + 1), errors, "iteration", "NRMSE")
    figure = Figure(save_figure(work, "errors", drawn), "Error of the image against the number of iterations.")
    summary = ["Simulated counts of a disc. One noise realisation: a start to build on, not an evaluation."]
    return Result(metrics, Report("A new experiment", summary, [Section("Errors", "", [figure], table)]), table)


def reconstruct(seed: int, size: int, level: float, iterations: int) -> dict[str, np.ndarray]:
    """NRMSE after every iteration of MLEM, of a disc with a hot spot and `level` mean counts a line of response."""
    voxels = grid.Grid((size, size, 1), (4.0, 4.0, 4.0))
    lors = system.build_system(scanner.parallel_lors(2 * size, size + size // 3, 4.0), voxels)
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    truth = jnp.asarray((x**2 + y**2 < 0.8) + 3.0 * ((x - 0.4) ** 2 + y**2 < 0.04), jnp.float32)[..., None]
    expected = projector.project(lors, truth)
    factor = level / expected.mean()
    counts = jax.random.poisson(jax.random.key(seed), factor * expected).astype(jnp.float32)
    data = acquisition.acquire(lors, counts, multiplicative=factor, additive=0.01)

    def error(image: jax.Array) -> jax.Array:
        return jnp.linalg.norm(image - truth) / jnp.linalg.norm(truth)

    steps = iterate.loop(em.mlem(data), em.init(data), iterations)
    return {"errors": np.array([float(error(state.image)) for state, _ in steps])}


if __name__ == "__main__":
    run_module(__file__)
