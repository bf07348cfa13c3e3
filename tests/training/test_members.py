"""Members that are trained side by side are those that were trained alone; each is kept in its own work directory."""

from contextlib import ExitStack
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.running.workdir import open_workdir
from medjax.training.members import train_members
from medjax.training.state import trainer

RATES = (1e-2, 3e-2, 1e-2)
SEEDS = (0, 1, 2)


def loss(params, batch, key):
    x, y = batch
    return jnp.mean((x @ params["w"] - y) ** 2) + 1e-3 * jax.random.normal(key) * jnp.sum(params["w"])


def make(settings):
    return trainer(loss, optax.adam(settings["rate"]), decay=0.9)


def start(seeds, member):
    key = jax.random.key(seeds[member])
    return {"w": jax.random.normal(key, (3,))}, jax.random.fold_in(key, 1)


def inputs(asked, seeds, member):
    asked.append(seeds[member])

    def batch(number):
        x = np.random.default_rng((seeds[member], number)).normal(size=(8, 3)).astype(np.float32)
        return x, x @ np.array([1.0, -2.0, 0.5], np.float32)

    return batch


def trained(folder, members, rates=RATES, **options):
    asked = []
    seeds = [SEEDS[member] for member in members]
    with ExitStack() as held:
        works = [held.enter_context(open_workdir(folder / f"seed={seed}", {"seed": seed})) for seed in seeds]
        kept = train_members(
            [(work, "net") for work in works], make, {"rate": jnp.array([rates[member] for member in members])},
            partial(start, seeds), partial(inputs, asked, seeds), 30, every=10, **options,
        )  # fmt: skip
    return kept, asked


@pytest.mark.parametrize(("strategy", "width"), [(None, None), ("vmap", None), ("vmap", 2)])
def test_together_is_alone(tmp_path, strategy, width):
    together, _ = trained(tmp_path / "together", (0, 1, 2), strategy=strategy, width=width)
    for member in range(3):
        [alone], _ = trained(tmp_path / f"alone{member}", (member,))
        np.testing.assert_allclose(together[member]["params"]["w"], alone["params"]["w"], rtol=1e-3)
        assert not together[member]["diverged"]
    assert not np.allclose(together[0]["params"]["w"], together[2]["params"]["w"])


def test_what_is_kept_is_not_trained_again(tmp_path):
    [first], asked = trained(tmp_path, (1,))
    assert asked == [1]
    kept, asked = trained(tmp_path, (0, 1, 2))
    assert asked == [0, 2]
    np.testing.assert_array_equal(kept[1]["params"]["w"], first["params"]["w"])
    assert trained(tmp_path, (0, 1, 2))[1] == []


def test_a_member_that_diverges_is_said_to_and_the_others_go_on(tmp_path):
    kept, _ = trained(tmp_path, (0, 1), rates=(1e-2, float("inf")))
    assert [bool(one["diverged"]) for one in kept] == [False, True]
    [alone], _ = trained(tmp_path / "alone", (0,))
    np.testing.assert_allclose(kept[0]["params"]["w"], alone["params"]["w"], rtol=1e-3)
