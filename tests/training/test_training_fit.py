"""A population trained to its end is its members trained alone, also by early stopping, also when it was killed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.training import early_stopping
from medjax.training.fit import fit
from medjax.training.population import grid, init, member
from medjax.training.state import require_finite_loss, trainer

SETTINGS = grid(rate=(0.1, 0.2, 1.0))
TARGET = jnp.array([1.0, -2.0, 0.5])
UNSEEN = np.array([0.7, -1.6, 0.2], np.float32)  # what validation wants: passed by on the way to the target


def loss(params, batch, key):
    return jnp.mean((params["x"] - TARGET + 0.1 * batch + 0.05 * jax.random.normal(key, (3,))) ** 2)


def make(settings):
    return trainer(loss, optax.sgd(settings["rate"]))


def batches(number):
    return np.random.default_rng(number).normal(size=3).astype(np.float32)


def validate(params, number):
    return float(np.mean((np.asarray(params["x"]) - UNSEEN) ** 2))


def begun():
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    return init(make, SETTINGS, {"x": jnp.zeros((3, 3))}, keys)


def fitted(strategy="loop", **options):
    return fit(make, SETTINGS, begun(), 40, inputs=batches, every=2, strategy=strategy, **options)


def alone(number, patience):
    algorithm = make(member(SETTINGS, number))
    state = algorithm.init({"x": jnp.zeros(3)}, jax.random.key(number))
    states = iterate.loop(algorithm, state, 40, inputs=batches, every=2, check=require_finite_loss)
    best = early_stopping.initial_best(state)
    for now, _, reached in early_stopping.early_stopping(states, best, lambda s: validate(s.params, 0), patience):
        best, state = reached, now
    return best, state


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_each_member_stops_where_it_would_alone_and_keeps_its_best(strategy):
    rows = []
    done = fitted(strategy, validate=validate, patience=6, report=lambda i, step, infos, **v: rows.append((i, step)))
    for number in range(3):
        best, last = alone(number, 6)
        np.testing.assert_allclose(done.params["x"][number], best.state.params["x"], rtol=1e-5, atol=1e-6)
        assert done.losses[number] == pytest.approx(best.loss, rel=1e-5)
        assert [step for i, step in rows if i == number][-1] == int(last.step)
    ends = {number: max(step for i, step in rows if i == number) for number in range(3)}
    assert len(set(ends.values())) > 1 and max(ends.values()) < 40  # at different steps, all before the end
    assert not done.diverged.any()


def test_values_beside_the_validation_loss_are_reported():
    rows = []

    def named(params, number):
        return {"validation": validate(params, number), "validation/first": float(params["x"][0])}

    done = fitted(validate=named, report=lambda i, step, infos, **values: rows.append((i, values)))
    plain = fitted(validate=validate)
    np.testing.assert_array_equal(done.losses, plain.losses)
    assert len(rows) == 60 and all(values.keys() == {"validation", "validation/first"} for _, values in rows)
    assert min(values["validation"] for i, values in rows if i == 1) == done.losses[1]


def test_without_validation_it_is_the_last_parameters():
    rows = []
    done = fitted(report=lambda i, step, infos: rows.append((i, step, infos.loss.shape)))
    algorithm = make(member(SETTINGS, 1))
    state = algorithm.init({"x": jnp.zeros(3)}, jax.random.key(1))
    wanted = iterate.last(iterate.loop(algorithm, state, 40, inputs=batches), state)
    np.testing.assert_allclose(done.params["x"][1], wanted.params["x"], rtol=1e-5)
    assert rows[:3] == [(0, 2, (2,)), (1, 2, (2,)), (2, 2, (2,))] and len(rows) == 60 and np.isnan(done.losses).all()


@pytest.mark.parametrize("options", [{}, {"validate": validate, "patience": 6}])
def test_a_killed_run_goes_on_to_the_same_bits(options, tmp_path):
    def killed(number, step, infos, **values):
        if step == 6:
            raise KeyboardInterrupt

    whole = fitted(**options)
    keep = {"checkpoints": tmp_path / "kept", "seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        fitted(report=killed, **keep, **options)
    begins = []
    resumed = fitted(begin=lambda steps: begins.append(steps.tolist()), **keep, **options)
    assert begins == [[4, 4, 4]]
    np.testing.assert_array_equal(resumed.params["x"], whole.params["x"])
    again = fitted(begin=lambda steps: begins.append(steps.tolist()), **keep, **options)  # finished: no step is left
    np.testing.assert_array_equal(again.params["x"], whole.params["x"])
    assert max(begins[1]) == int(np.max(whole.state.members.step))


def test_a_run_that_goes_on_beside_a_stopped_member_makes_no_more_steps(tmp_path):
    def killed(number, step, infos, **values):
        if step == 6:
            raise KeyboardInterrupt

    def counted(step):
        asked.append(step)
        return batches(step)

    asked: list[int] = []
    start = begun()
    start = start._replace(members=start.members._replace(params={"x": start.members.params["x"].at[1].set(np.nan)}))
    run = partial(fit, make, SETTINGS, start, 9, inputs=counted, every=2, strategy="vmap", checkpoints=tmp_path / "k")
    with pytest.raises(KeyboardInterrupt):
        run(seconds=0.0, report=killed)
    asked.clear()
    assert run().diverged.tolist() == [False, True, False] and asked == [4, 5, 6, 7, 8]


def test_a_member_that_diverges_is_told_from_the_others():
    def broken(params, batch, key, rate):
        return loss(params, batch, key) * jnp.where((rate > 0.9) & (params["x"][0] > 0.5), jnp.nan, 1.0)

    def breaking(settings):
        return trainer(partial(broken, rate=settings["rate"]), optax.sgd(settings["rate"]))

    done = fit(breaking, SETTINGS, begun(), 10, inputs=batches, every=5, strategy="vmap")
    assert done.diverged.tolist() == [False, False, True] and np.isfinite(done.params["x"]).all()
    done = fitted(validate=lambda params, number: np.nan if number == 1 else 1.0)
    assert done.diverged.tolist() == [False, True, False]
