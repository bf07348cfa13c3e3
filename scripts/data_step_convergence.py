"""Convergence of the data step of a sampler, in the brain, on simulated scans of a head's slice.

    python scripts/data_step_convergence.py [--sigma 0.4] [--head 100]

The anchor is the true image with white noise of deviation σ (mean emission 1), as a sampler has it before its data
step; the step is to solve for the image given that anchor and the counts. Printed: distance from the converged step
after 2, 4 and 8 iterations, relative to that of the anchor. De Pierro's update (DDS) is of the Poisson likelihood with
images ≥ 0, and is compared with its own limit.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pet.scans import Scans, ScanSetup, scan_of, setup, simulate
from experiments.pet.subjects import held_out_subjects
from medjax.diffusion import data_step
from medjax.likelihood import proximal, update
from medjax.pet import em
from medjax.pet.acquisition import Acquisition
from medjax.pet.scanner import preset

LEVELS = (2.5, 10.0, 50.0)  # trues per mm³
ITERATIONS = (2, 4, 8)
CONVERGED = 80  # iterations of conjugate gradients
DE_PIERRO_CONVERGED = 1500


def without_preconditioner(equations: data_step.NormalEquations) -> data_step.NormalEquations:
    """The same equations, preconditioned by the identity."""
    return equations._replace(
        kappa=jnp.ones_like(equations.kappa), response=0 * equations.response, inverse_kappa2=jnp.ones(())
    )


@jax.jit
def errors(acquisition: Acquisition, truth: jax.Array, mask: jax.Array, sigma: float) -> dict[str, jax.Array]:
    """Relative error after `ITERATIONS` of each solver of the step."""
    early = jax.lax.fori_loop(0, 8, lambda _, x: update(acquisition, x), em.init(acquisition).image)
    scale = jnp.mean(truth, where=truth > 0.01 * jnp.max(truth))
    equations = data_step.normal_equations(acquisition, early, scale)
    anchor = truth / scale + sigma * jax.random.normal(jax.random.key(0), truth.shape)
    positive = scale * jnp.maximum(anchor, 1e-3)

    def de_pierro(n: int) -> jax.Array:
        weight = 1 / (sigma * scale) ** 2
        return jax.lax.fori_loop(0, n, lambda _, x: proximal(acquisition, x, positive, weight), positive) / scale

    def table(start: jax.Array, run: Callable[[int], jax.Array], converged: int) -> jax.Array:
        limit = run(converged)
        distance = lambda x: jnp.sqrt(jnp.sum((x - limit) ** 2 * mask))  # noqa: E731
        return jnp.stack([distance(run(n)) / distance(start) for n in ITERATIONS])

    plain = without_preconditioner(equations)
    solve = lambda system: lambda n: data_step.solve(system, anchor, sigma**2, n)[0]  # noqa: E731
    limit = data_step.solve(equations, anchor, sigma**2, CONVERGED)
    return {
        "conjugate gradients, diagonal × Fourier": table(anchor, solve(equations), CONVERGED),
        "conjugate gradients, no preconditioner": table(
            anchor, lambda n: limit[0] if n == CONVERGED else solve(plain)(n), CONVERGED
        ),
        "De Pierro's update": table(positive / scale, de_pierro, DE_PIERRO_CONVERGED),
        "residual of the reference": limit[1].residual[None],
    }


def case_of(plane: ScanSetup, cases: Scans, number: int) -> tuple[Acquisition, np.ndarray, np.ndarray]:
    """Acquisition, truth and brain mask of a case."""
    case = cases.select(number)
    return scan_of(plane, case).acquisition, case.truth, case.mask


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigma", type=float, default=0.4, help="Standard deviation of the noise of the anchor.")
    parser.add_argument("--head", type=int, default=500, help="Number of the held-out head.")
    arguments = parser.parse_args()
    plane = setup(preset("mmr"), 96, 2.5)
    cases = simulate(plane, held_out_subjects(plane, arguments.head, 1, lesions=3), LEVELS, 1, 0)
    print(f"{'trues/mm³':>9}  {'error after ' + ', '.join(map(str, ITERATIONS)) + ' iterations':32}")
    for number, level in enumerate(LEVELS):
        for name, values in errors(*case_of(plane, cases, number), arguments.sigma).items():
            print(f"{level:9g}  {name:42} " + " ".join(f"{value:8.2g}" for value in values))


if __name__ == "__main__":
    main()
