"""Krylov spaces: the solutions of other variances, their expected data, and the path of EM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import data_step, krylov
from medjax.errors import ConfigError
from medjax.likelihood import Gaussian

from .test_data_step import affine

SCALE = 30.0


@pytest.fixture(scope="module")
def problem(scan, early_image, noisy_blob):
    return data_step.normal_equations(scan, early_image, SCALE), early_image, noisy_blob


@jax.jit
def space_of(equations, anchor):
    expected = equations.likelihood.expected(SCALE * anchor)
    return krylov.krylov_space(equations, anchor, expected, 0.16, 6)


@jax.jit
def solved(equations, anchor, variance, iterations):
    return data_step.solve(equations, anchor, variance, iterations)


def test_one_space_holds_the_solutions_of_all_variances(scan, problem):
    equations, _, anchor = problem
    space = space_of(equations, anchor)
    assert space.projector_calls == 12
    for variance in (0.05, 0.16, 0.5):
        image, expected = krylov.combine(space, krylov.coefficients(space, variance))
        np.testing.assert_allclose(expected, scan.expected(SCALE * image), rtol=1e-3, atol=1e-3)
        residual = SCALE * scan.adjoint(equations.weights * scan.residual(expected)) + (anchor - image) / variance
        left = [float(jnp.sum(p * residual)) for p in space.basis]  # nothing better in the space
        np.testing.assert_allclose(left, 0, atol=2e-3 * float(jnp.abs(space.right).max()))
        solution, _ = solved(equations, anchor, variance, 60)
        assert jnp.linalg.norm(image - solution) < 0.7 * jnp.linalg.norm(anchor - solution)
    image, _ = krylov.combine(space, krylov.coefficients(space, 0.0))
    np.testing.assert_allclose(image, anchor, atol=1e-6)


def test_of_its_own_variance_it_is_conjugate_gradients(problem):
    equations, _, anchor = problem
    full = space_of(equations, anchor)
    for n in (1, 3):
        part = full._replace(
            basis=full.basis[:n],
            basis_data=full.basis_data[:n],
            curvature=full.curvature[:n, :n],
            gram=full.gram[:n, :n],
            right=full.right[:n],
        )
        image, _ = krylov.combine(part, krylov.coefficients(part, 0.16))
        np.testing.assert_allclose(image, solved(equations, anchor, 0.16, n)[0], atol=1e-4)
        known = full._replace(normal=full.normal[:n])
        residual = solved(equations, anchor, 0.16, n)[1].residual
        np.testing.assert_allclose(krylov.residual_before_last(known, 0.16), residual, rtol=2e-3)


def test_the_path_of_a_linear_update_is_exact():
    """Gradient ascent on a Gaussian likelihood is linear: its iterates are those of the Krylov space, to rounding."""
    matrix = affine(6, 9).matrix

    def forward(operator, image):
        return operator @ image

    def adjoint(operator, data):
        return operator.T @ data

    bound = float(np.linalg.norm(matrix, 2)) ** 2
    likelihood = Gaussian(jnp.arange(9.0), 0.5, matrix, 1.1 * bound, forward, adjoint)
    image = jnp.ones(6)
    path = krylov.em_path(data_step.normal_equations(likelihood, image), image, 6)
    found = krylov.expected_of_path(path, jnp.asarray([0.0, 1.0, 2.0, 5.0, 40.0]))
    iterates = [image]
    for _ in range(40):
        iterates.append(likelihood.update(iterates[-1]))
    expected = [likelihood.expected(iterates[n]) for n in (0, 1, 2, 5, 40)]
    np.testing.assert_allclose(found, jnp.stack(expected), rtol=2e-3, atol=2e-3)


def test_the_path_of_mlem_needs_few_directions(scan, problem):
    equations, image, _ = problem
    path = krylov.em_path(equations, image, 6)
    found = jax.vmap(scan.deviance)(krylov.expected_of_path(path, jnp.arange(0.0, 31.0, 10.0)))
    deviances = []
    for _ in range(31):
        expected = scan.expected(image)
        deviances.append(float(scan.deviance(expected)))
        image = scan.update(image, expected)
    truth = np.array(deviances)[::10]
    np.testing.assert_allclose(found - found[0], truth - truth[0], rtol=0.12)
    assert path.projector_calls == 12


def test_directions_that_are_none_change_nothing():
    """Data that the anchor fits exactly: no direction at all."""
    data = jnp.ones((5, 1))
    equations = data_step.normal_equations(Gaussian(data, 0.5), data)
    space = krylov.krylov_space(equations, data, data, 1.0, 3)
    image, expected = krylov.combine(space, krylov.coefficients(space, 2.0))
    np.testing.assert_array_equal(image, data)
    np.testing.assert_array_equal(expected, data)


def test_a_path_needs_a_preconditioner():
    likelihood = affine()
    equations = data_step.normal_equations(likelihood, jnp.ones((4, 5)))
    with pytest.raises(ConfigError, match=r"precondition\(image, direction\); Affine has none"):
        krylov.em_path(equations, jnp.ones((4, 5)), 2)
