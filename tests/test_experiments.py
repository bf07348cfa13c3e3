"""Every experiment's tiny preset runs from end to end, and says the same twice; a user's own operator plugs in."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.pet import em
from medjax.pet.acquisition import Acquisition
from medjax.running.experiment import run_experiment

ROOT = Path(__file__).parents[1]
NAMES = sorted(file.stem for file in (ROOT / "experiments").glob("*.py") if not file.stem.startswith("_"))


def runs_and_repeats(name: str, tmp_path: Path, repeats: bool = True) -> dict[str, float]:
    """The tiny preset, twice if it `repeats`, says the same: its metrics."""
    pytest.importorskip("nilearn")
    first = run_experiment(name, "tiny", workdir=tmp_path / "first", root=ROOT)
    if repeats:
        second = run_experiment(name, "tiny", workdir=tmp_path / "second", root=ROOT)
        assert (first / "metrics.json").read_bytes() == (second / "metrics.json").read_bytes()
    metrics = json.loads((first / "metrics.json").read_text())
    assert len(metrics) > 5 and any(value is not None for value in metrics.values())
    assert (first / "report.html").stat().st_size > 10_000
    assert list((first / "figures").glob("*.png"))
    return metrics


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("pet_")])
def test_tiny_runs_and_repeats(name: str, tmp_path):
    repeats = name in ("demo", "fetal_lung_maturity")  # populations have tests of their own, to the bit
    metrics = runs_and_repeats(name, tmp_path, repeats)
    if name == "demo":  # it shows what it says
        assert metrics["nrmse/mr_map_em"] < metrics["nrmse/osem"] < 0.5 and metrics["nrmse/map_em"] < 0.5


def test_an_operator_from_outside_plugs_in():
    """EM needs of an acquisition only `project` and `backproject`: here products with a matrix, the system."""
    matrix = jnp.asarray(np.abs(np.random.default_rng(0).normal(size=(6, 5))), jnp.float32)

    def project(system: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.einsum("bx,xyz->byz", system, image)

    def backproject(system: jax.Array, sinogram: jax.Array) -> jax.Array:
        return jnp.einsum("bx,byz->xyz", system, sinogram)

    truth = jnp.ones((5, 3, 2)).at[2].set(4.0)
    counts = project(matrix, truth)
    ones = jnp.ones_like(counts)
    scan = Acquisition(counts, ones, 0 * ones, backproject(matrix, ones), matrix, None, project, backproject)
    stacked = jax.tree.map(lambda a: a[None], scan)
    state, info = iterate.scan(em.osem(stacked), em.init(stacked), 400)
    assert info.deviance[-1] < 1e-3 * info.deviance[0]
    np.testing.assert_allclose(state.image, truth, rtol=0.2)
