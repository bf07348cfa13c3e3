"""Early stopping: the best state is kept, training ends after its patience, also if it was resumed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.errors import DataError
from medjax.training.checkpoint import restore, save
from medjax.training.early_stopping import early_stopping, initial_best
from medjax.training.state import trainer


def loss(params, batch, key):
    return jnp.mean((params["w"] * batch - 3 * batch) ** 2)


def batches(number):
    return np.random.default_rng(number).normal(size=4).astype(np.float32)


ALGORITHM = trainer(loss, optax.adam(0.1))
START = ALGORITHM.init({"w": jnp.zeros(())}, jax.random.key(0))


def until_best(validate, n=400, state=START, before=None):
    states = iterate.loop(ALGORITHM, state, n, inputs=batches, every=10, donate=True)
    for now, _, best in early_stopping(states, before or initial_best(state), validate, 30, int(state.step)):
        yield jax.tree.map(jnp.array, now), best, validate(now)


def away(state):
    """Least where w passes 2 on its way to 3."""
    return abs(float(state.params["w"]) - 2)


def test_it_keeps_the_best_and_stops_after_its_patience():
    rows = list(until_best(away))
    seen = [loss for _, _, loss in rows]
    least = int(np.argmin(seen))
    assert len(seen) == least + 1 + 3 < 40
    best = rows[-1][1]
    assert (best.loss, int(best.state.step)) == (seen[least], 10 * (least + 1))
    chex.assert_trees_all_equal(best.state.params, rows[least][0].params)


def test_it_resumes_and_knows_that_it_had_stopped(tmp_path):
    rows = list(until_best(away))
    for at in (0, len(rows) - 2, len(rows) - 1):
        state, best, _ = rows[at]
        save(tmp_path / str(at), int(state.step), {"state": state, "best": best})
        step, kept = restore(tmp_path / str(at), {"state": START, "best": initial_best(START)})
        more = list(until_best(away, 400 - step, kept["state"], kept["best"]))
        assert len(more) == len(rows) - 1 - at
        last = more[-1][1] if more else kept["best"]
        assert last.loss == rows[-1][1].loss
        chex.assert_trees_all_equal(last.state.params, rows[-1][1].state.params)


def test_no_progress_and_no_number():
    assert [int(best.state.step) for _, best, _ in until_best(lambda state: 0.0)] == [10] * 4
    with pytest.raises(DataError, match="validation loss is not finite by step 10"):
        list(until_best(lambda state: np.nan))
