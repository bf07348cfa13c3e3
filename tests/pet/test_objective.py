"""The objective that every algorithm returns: that of the image which entered the step, found anew here."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.iterate import Algorithm
from medjax.penalty import Penalty, Quadratic, from_function, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, select_subset
from medjax.pet.bsrem import bsrem
from medjax.pet.kernel_em import kernel_em, mr_kernel
from medjax.pet.svrg import objective, preconditioner, svrg
from tests.pet.test_em import GRID, phantom, scan

WEIGHT = 3.0
NONE = from_function(lambda image: 0.0 * jnp.sum(image))


def smooth() -> Quadratic:
    return Quadratic(neighbors(GRID.shape, GRID.voxel_mm))


def _preconditioned(stacked: Acquisition) -> Algorithm:
    image = preconditioner(stacked, smooth(), WEIGHT, em.init(stacked).image)
    return bsrem(stacked, smooth(), WEIGHT, preconditioner=image)


ALGORITHMS: dict[str, tuple[Callable[[Acquisition], Algorithm], bool]] = {
    "OSEM": (em.osem, False),
    "kernel EM": (lambda stacked: kernel_em(stacked, mr_kernel(jnp.asarray(phantom()), 4)), False),
    "MAP-EM": (lambda stacked: em.map_em(stacked, smooth(), WEIGHT), True),
    "BSREM": (lambda stacked: bsrem(stacked, smooth(), WEIGHT), True),
    "preconditioned BSREM": (_preconditioned, True),
    "SVRG": (lambda stacked: svrg(stacked, smooth(), WEIGHT), True),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_info_holds_the_objective_of_the_image_that_entered(name: str, x64: None):
    make, penalised = ALGORITHMS[name]
    penalty: Penalty = smooth() if penalised else NONE
    for number in (1, 3):
        stacked = scan(number, background=1.0)
        algorithm = make(stacked)
        state = algorithm.init()
        for step in range(number + 1):
            image = state.image
            state, info = iterate.step(algorithm, state)
            part = select_subset(stacked, int(em.subset_order(number)[step % number]))
            deviance, cost = part.deviance(part.expected(image)), WEIGHT * penalty.value(image)
            np.testing.assert_allclose(info.deviance, deviance, rtol=1e-10)
            np.testing.assert_allclose(info.objective, -deviance - cost / number, rtol=1e-10)
            if number == 1:
                np.testing.assert_allclose(info.objective, objective(stacked, penalty, WEIGHT, image), rtol=1e-10)


def test_it_costs_no_projection(x64: None):
    """A step that returns the objective projects as often as it would without."""
    stacked = scan(3, background=1.0)
    for make, _ in ALGORITHMS.values():
        algorithm = make(stacked)
        state = algorithm.init()

        def products(keep_info: bool, algorithm=algorithm, state=state) -> int:
            step = jax.jit(lambda state: algorithm.step(state) if keep_info else algorithm.step(state)[0])
            return step.lower(state).compile().as_text().count(" dot(")

        assert products(True) == products(False)
