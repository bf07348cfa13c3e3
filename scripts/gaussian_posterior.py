"""Error of each sampler against the exact posterior of a Gaussian prior and Gaussian noise.

256 voxels, prior N(1, 0.5²), data = voxel + N(0, 0.5²), so the posterior is N((1 + data) / 2, 0.354²). Samplers get the
exact score. Printed: root mean square distance of the samples' mean from the posterior's, and their standard deviation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import iterate
from medjax.diffusion import data_step, dds_cg, guidance, likelihood_schedule, sampler, split_gibbs
from medjax.diffusion import likelihood_schedule_cg as schedule_cg
from medjax.diffusion.denoiser import Denoiser, from_score
from medjax.diffusion.reconstruct import InverseProblem
from medjax.diffusion.sde import vp
from medjax.likelihood import Gaussian

SDE, MEAN, PRIOR_SD, NOISE_SD, VOXELS, SAMPLES = vp(), 1.0, 0.5, 0.5, 256, 1000
Method = Callable[[Denoiser, Gaussian], guidance.GuidedDenoiser]


def score(x: Array, t: Array) -> Array:
    """The exact score of the prior's marginal."""
    gamma, nu = SDE.marginal(t[:, None])
    return -(x - gamma * MEAN) / (gamma**2 * PRIOR_SD**2 + nu**2)


def simulate() -> Gaussian:
    """Likelihood of noisy data of a draw of the prior."""
    draw = np.random.default_rng(0)
    truth = MEAN + PRIOR_SD * draw.standard_normal(VOXELS)
    data = jnp.asarray(truth + NOISE_SD * draw.standard_normal(VOXELS), jnp.float32)
    return Gaussian(data, NOISE_SD, curvature=2.0)


def errors(samples: Array, likelihood: Gaussian) -> tuple[float, float]:
    """Distance of the mean, and the mean standard deviation."""
    exact = (MEAN + likelihood.data) / 2
    return float(jnp.sqrt(jnp.mean((samples.mean(axis=0) - exact) ** 2))), float(samples.std(axis=0).mean())


def compare(method: Method, solver: sampler.Solver, times: Array) -> tuple[float, float]:
    """Errors of a guidance."""
    likelihood, steps = simulate(), len(times) - 1
    guided_denoiser = method(from_score(score, SDE), likelihood)
    algorithm = sampler.sampler(guided_denoiser, SDE, times, solver)

    def one(key: Array) -> Array:
        image = MEAN + PRIOR_SD * jax.random.normal(jax.random.fold_in(key, 9), (VOXELS,))
        return iterate.scan(algorithm, algorithm.init(key, (VOXELS,), image), steps)[0].x0

    return errors(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), SAMPLES)), likelihood)


def compare_split_gibbs(rho: float, settings: split_gibbs.SplitGibbsSettings) -> tuple[float, float]:
    """Errors of split Gibbs sampling, one draw of each chain, from an image that is the data."""
    likelihood = simulate()
    problem = InverseProblem(likelihood, from_score(score, SDE), likelihood.data, likelihood.data, 1.0)
    sample = jax.jit(lambda key, rho: split_gibbs.chains(key, problem, settings, rho, PRIOR_SD).images[:, 0])
    return errors(sample(jax.random.key(0), rho), likelihood)


def schedule(iterations: float) -> Method:
    """Likelihood scheduling from the prior's mean."""

    def method(denoiser: Denoiser, likelihood: Gaussian) -> guidance.GuidedDenoiser:
        targets = likelihood_schedule.targets(likelihood, jnp.full(VOXELS, MEAN), iterations, 50, 10, 1)
        return likelihood_schedule.likelihood_schedule(denoiser, likelihood, targets.deviance, 1.0, 50, None)

    return method


def dds(proximal_weight: float, updates: int) -> Method:
    """DDS with all data in every update."""
    return lambda d, lik: guidance.dds(d, lik, proximal_weight, updates=updates, nonnegative=False)


def solved(factor: float) -> Method:
    """DDS whose data step is solved."""

    def method(denoiser: Denoiser, likelihood: Gaussian) -> guidance.GuidedDenoiser:
        equations = data_step.normal_equations(likelihood, likelihood.data)
        return dds_cg.dds_cg(denoiser, equations, factor, sigma_data=PRIOR_SD, nonnegative=False)

    return method


def solved_schedule(iterations: float) -> Method:
    """Likelihood scheduling from the prior's mean, each target met by a solved step."""

    def method(denoiser: Denoiser, likelihood: Gaussian) -> guidance.GuidedDenoiser:
        early = jnp.full(VOXELS, MEAN)
        equations = data_step.normal_equations(likelihood, early)
        targets, _ = schedule_cg.targets_cg(equations, early, iterations, 12)
        return schedule_cg.likelihood_schedule_cg(denoiser, equations, targets, sigma_data=PRIOR_SD, floor=None)

    return method


def main() -> None:
    """Print the table."""
    ancestral, times = sampler.ddim(1.0), sampler.uniform_times
    rows = {
        f"naive, weight {w:g}": compare(lambda d, k, w=w: guidance.naive(d, k, w), sampler.euler_maruyama, times(500))
        for w in (0.5, 1.0, 2.0)
    }
    rows |= {
        f"DPS, weight {w:g}": compare(lambda d, k, w=w: guidance.dps(d, k, w, nonnegative=False), ancestral, times(200))
        for w in (0.5, 1.0, 2.0, 4.0)
    }
    rows |= {
        f"DDS, {u} updates, λ = {a:g}": compare(dds(a, u), ancestral, times(50))
        for a, u in ((0.0, 1), (2.0, 1), (2.0, 4))
    }
    rows |= {
        f"DDS-δ, δ {d:g}": compare(lambda p, k, d=d: guidance.dds_delta(p, k, d), ancestral, times(50))
        for d in (0.0003, 0.001, 0.003, 0.01)
    }
    rows |= {
        f"likelihood schedule, {m:g} iterations": compare(schedule(m), ancestral, times(50))
        for m in (0.5, 1.0, 2.0, 4.0)
    }
    geometric = sampler.geometric_times(SDE, 12, 1.2, 0.1)
    rows |= {f"DDS, solved step, k = {k:g}": compare(solved(k), ancestral, geometric) for k in (0.5, 1.0, 2.0)}
    rows |= {
        f"likelihood schedule, solved, {m:g} iterations": compare(solved_schedule(m), ancestral, geometric)
        for m in (0.5, 1.0, 2.0, 4.0)
    }
    corrected = split_gibbs.SplitGibbsSettings(chains=SAMPLES, nonnegative=False)
    plain = corrected._replace(correction_iterations=0)
    rows |= {f"split Gibbs, ρ × {r:g}": compare_split_gibbs(r, corrected) for r in (0.5, 1.0, 2.0)}
    rows |= {f"split Gibbs without correction, ρ × {r:g}": compare_split_gibbs(r, plain) for r in (0.5, 1.0, 2.0)}
    print(f"{'posterior':40s} error of mean 0.000, SD {1 / np.sqrt(1 / PRIOR_SD**2 + 1 / NOISE_SD**2):.3f}")
    for name, (distance, deviation) in rows.items():
        print(f"{name:40s} error of mean {distance:.3f}, SD {deviation:.3f}")


if __name__ == "__main__":
    main()
