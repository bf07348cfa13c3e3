"""Program of a test: training with batches divided among all devices, alone, in a population and as a fit.

    python -m tests.training.data_parallel

Ends with an error unless parameters equal those of one device to 1e-6 and each device holds its part of a batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from medjax import iterate
from medjax.errors import DataError
from medjax.training import population
from medjax.training.fit import fit
from medjax.training.parallel import data_mesh, on_mesh
from medjax.training.state import trainer

BATCH, STEPS = 8, 4


def make(settings):
    """A training of a linear network with noise of its own in every example, and a mean over the whole batch."""

    def loss(params, batch, key):
        x, y = batch
        noisy = x + 0.1 * jax.vmap(lambda key: jax.random.normal(key, (3,)))(jax.random.split(key, len(x)))
        error = jnp.matmul(noisy, params, precision="highest") - y
        return jnp.mean(error**2) / (1 + jnp.std(error))  # not a mean of the parts' means

    return trainer(loss, optax.adam(settings["rate"]))


def batches(number):
    """Inputs and targets of a step."""
    rng = np.random.default_rng(number)
    return rng.normal(size=(BATCH, 3)).astype(np.float32), rng.normal(size=(BATCH, 2)).astype(np.float32)


def check(found, wanted):
    """Compare parameters."""
    difference = np.abs(np.asarray(found) - np.asarray(wanted)).max()
    assert difference < 1e-6, difference


def main():
    """Compare."""
    mesh, settings = data_mesh(), {"rate": jnp.array([1e-2, 3e-3])}
    assert mesh.size == 4
    one = make({"rate": 1e-2})
    first = one.init(jnp.ones((3, 2)), jax.random.key(0))
    alone = iterate.last(iterate.loop(one, first, STEPS, inputs=batches), first)
    algorithm, state = on_mesh(mesh, one, first)
    check(iterate.last(iterate.loop(algorithm, state, STEPS, inputs=batches), state).params, alone.params)

    whole = jax.jit(algorithm.step).lower(state, batches(0)).compile()
    assert "all-reduce" in whole.as_text()  # the batch is divided, and gradients are added up
    assert jax.tree.leaves(whole.output_shardings)[0].spec == PartitionSpec()

    try:
        jax.eval_shape(algorithm.step, state, jax.tree.map(lambda leaf: leaf[:6], batches(0)))
        raise AssertionError("6 examples on 4 devices")
    except DataError as error:
        assert "6 examples on 4 devices; expected a multiple" in str(error), error

    members = population.init(make, settings, jnp.ones((2, 3, 2)), jax.random.split(jax.random.key(0), 2))
    for inputs in (batches, [batches, lambda number: batches(100 + number)]):
        keywords = {"inputs": inputs, "every": 2}
        alone = [state for state, _ in population.loop(make, settings, members, STEPS, **keywords)][-1]
        states = [state for state, _ in population.loop(make, settings, members, STEPS, mesh=mesh, **keywords)]
        check(states[-1].members.params, alone.members.params)
    done = fit(make, settings, members, STEPS, inputs=batches, every=2, mesh=mesh)
    wanted = fit(make, settings, members, STEPS, inputs=batches, every=2)
    check(done.params, wanted.params)
    print(f"{mesh.size} devices: the same")


if __name__ == "__main__":
    main()
