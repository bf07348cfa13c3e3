"""The PET experiments with oblique planes: a volume, scans thinned from one full-count scan, perpendicular slices."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import pet_conditional_sampling, pet_likelihood_schedule
from experiments import pet_conditional_sampling as sampling
from experiments.pet import comparison
from experiments.pet.oblique import of_geometry
from experiments.pet.scans import Scans
from experiments.pet.subjects import subject_of
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.pet.grid import Grid, centers_mm
from medjax.phantoms.brain import Brain
from medjax.running.config import load_config
from medjax.running.workdir import load_kept, open_workdir

CONFIGS = Path(pet_conditional_sampling.__file__).parent


class Smooth:
    """A prior of nothing: what is there, without its noise's scale."""

    sde = vp()

    def __call__(self, x, t):
        gamma = jax.vmap(self.sde.marginal)(t)[0]
        return jnp.maximum(x / gamma.reshape(-1, 1, 1), 0)


def config(name: str = "pet_conditional_sampling", *more: str) -> ConfigDict:
    return load_config(CONFIGS / f"{name}.py", "tiny", ["geometry=oblique", *more])


def ball(grid: Grid) -> Brain:
    """A head of no anatomy: a ball of grey matter around white, water all through it, and a hot lesion."""
    x, y, z = centers_mm(grid)
    radius = np.sqrt(x**2 + y**2 + z**2)
    inside, white, lesion = radius < 90, radius < 60, np.sqrt((x - 20) ** 2 + y**2 + z**2) < 15
    activity = np.select([lesion, white, inside], [4.0, 1.0, 2.0], 0.0).astype(np.float32)
    mu, none = np.where(inside, np.float32(0.0096), np.float32(0)), np.zeros(grid.shape, int)
    tissues = (np.float32(inside & ~white), np.float32(white))
    return Brain(activity, activity, mu, *tissues, inside, inside, none, lesion.astype(int), grid.affine)


def test_tiny_runs_with_oblique_planes(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "held_out_subjects", lambda setup, *_, **__: [subject_of(setup, ball)])
    own = config("pet_conditional_sampling", "oblique.methods=('osem', 'dds_delta_perpendicular')")
    with open_workdir(tmp_path / "run", own) as work:
        result = sampling.run(own, work, denoiser=Smooth())
        scans = Scans(**load_kept(work.checkpoints / "test.npz"))
    metrics, table = result.metrics, result.table
    for name in ("osem", "dds_delta_perpendicular"):
        keys = ("nrmse", "nrmse_full_count", "bias", "bias_full_count", "deviation", "roughness_between")
        assert all(np.isfinite(metrics[f"{key}/{name}/2.5"]) for key in keys)
    assert metrics["nrmse_full_count/osem/2.5"] != metrics["nrmse/osem/2.5"]
    assert any(key.startswith("noise_bias/osem/") for key in metrics)
    assert table is not None and "NRMSE against full counts" in table.header
    assert scans.counts.shape == (2, 140, 72, 4 + 3 + 3)  # planes of ring differences 0, +1 and −1
    np.testing.assert_array_equal(scans.full_count[0], scans.full_count[1])  # both are thinned from one scan
    trues = (scans.counts - scans.additive).sum(axis=(1, 2, 3))
    volume = (scans.truth[0] > 0).sum() * 10.0**3
    np.testing.assert_allclose(trues / volume, 2.5, rtol=0.1)  # 1 % of the full counts
    image, mask = scans.full_count[0], scans.mask[0]
    assert np.corrcoef(image[mask], scans.truth[0][mask])[0, 1] > 0.8


def test_the_config_of_oblique_planes_is_checked():
    assert of_geometry(load_config(CONFIGS / "pet_conditional_sampling.py", "tiny")).grid.size == 96
    changed = of_geometry(config("pet_likelihood_schedule"))
    assert changed.grid.size == 24 and changed.sampling.eta == 1.0 and changed.sampling.steps == 2
    assert changed.methods == pet_likelihood_schedule.get_config("tiny").oblique.methods
    with pytest.raises(ConfigError, match=r"max_ring_difference 4; expected below 4"):
        config("pet_conditional_sampling", "oblique.scan.max_ring_difference=4")
    with pytest.raises(ConfigError, match=r"trues_per_mm3 300; expected no more"):
        config("pet_conditional_sampling", "oblique.scan.trues_per_mm3=(300.0,)")
