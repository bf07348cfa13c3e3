"""The PET experiments' supervised networks: members of a population are those trained alone; a user's takes part."""

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pet_likelihood_schedule import get_config
from experiments.pet import supervised
from experiments.pet.comparison import study_inputs
from experiments.pet.scans import simulate
from experiments.pet.subjects import other_brain_subjects
from medjax.diffusion.sde import vp
from medjax.models.model import Model
from medjax.models.residual import residual_cnn
from medjax.running.workdir import WorkDir, open_workdir
from tests.phantoms.test_freesurfer import GREY, VENTRICLE, WHITE, written

SIDE = 24
SMALL = residual_cnn(4, 2)
SEEDS, RATES = (0, 1, 1), (1e-3, 1e-3, 1e-2)


class Constant(NamedTuple):
    value: float = 1.0
    sde = vp()

    def __call__(self, x, t):
        return jnp.full_like(x, self.value)


def config(seed: int):
    c = get_config("tiny")
    c.seed, c.scan.scanner, c.grid.size, c.grid.voxel_mm = seed, "ring_2d", SIDE, 10.0
    return c


def init(key, image, level):
    return SMALL.init(key, image), jnp.zeros(())  # any pytree is good enough


def apply(params, image, level, key=None):
    return SMALL.apply(params[0], image) - image + params[1] * level.reshape(-1, 1, 1, 1)


def test_count_levels_are_those_of_the_scans():
    c = config(0)
    c.scan.trues_per_mm3 = (0.7, 10.0)
    [inputs] = study_inputs([c], [None], Constant())
    assert inputs.levels == tuple(np.float32([0.7, 10.0]).tolist())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ball of tissues with FreeSurfer's labels: no atlas is needed."""
    made = tmp_path_factory.mktemp("ball")
    radius = 3 * np.linalg.norm(np.indices((50, 50, 50)) - 24.5, axis=0)
    written(made, np.select([radius < 20, radius < 50, radius < 60], [VENTRICLE, WHITE, GREY], 0))
    return made


@pytest.fixture(scope="module")
def shared():
    """The scanner and what is compiled."""
    return study_inputs([config(0)], [WorkDir(Path())], Constant())[0]


@pytest.fixture(scope="module")
def learner(shared):
    return supervised.unet_behind_osem(shared.setup, shared.reconstructors["osem"], 2, Model(init, apply))


def trained(shared, learner, heads, path, seeds, rates):
    """Images that the network of each member makes of that member's first scans, and the scans."""
    with ExitStack() as held:
        works = [held.enter_context(open_workdir(path / str(k), {"seed": seed})) for k, seed in enumerate(seeds)]
        members = [shared._replace(work=work, seed=seed) for work, seed in zip(works, seeds, strict=True)]
        scans = [simulate(shared.setup, heads, shared.levels, 1, seed) for seed in seeds]
        runs = supervised.train(learner, members, scans, rates, 6, batch=2, strategy="vmap")
    return [run(jax.random.key(0), own, {}).image for run, own in zip(runs, scans, strict=True)], scans


def test_a_population_is_its_members_alone(shared, learner, folder, tmp_path):
    heads = other_brain_subjects(shared.setup, folder)
    together, scans = trained(shared, learner, heads, tmp_path / "together", SEEDS, RATES)
    for member in (0, 2):
        own = slice(member, member + 1)
        [alone], _ = trained(shared, learner, heads, tmp_path / f"alone{member}", SEEDS[own], RATES[own])
        scale = np.abs(alone).max()
        np.testing.assert_allclose(together[member] / scale, alone / scale, atol=1e-3)
        start = supervised.osem_images(shared.reconstructors["osem"], scans[member])
        assert np.abs(alone - start).max() > 5e-3 * scale  # it learnt something
    assert not np.allclose(together[0], together[1])  # another seed
    assert not np.allclose(together[1], together[2])  # another learning rate


def test_scans_of_another_brain(shared, folder):
    """Two slices, each twice; the lower one is larger; no lesions, so no lesion contrast."""
    first, second = other_brain_subjects(shared.setup, folder)
    assert first.truth.brain_mask.sum() > second.truth.brain_mask.sum()
    cases = simulate(shared.setup, [first, second], (10.0,), 2, seed=0)
    assert cases.number == 4 and np.isfinite(cases.counts).all() and not cases.lesions.any()
    trues = (cases.counts - cases.additive).sum(axis=(1, 2, 3))
    expected = 10.0 * np.array(
        [first.emission_volume_mm3, first.emission_volume_mm3, second.emission_volume_mm3, second.emission_volume_mm3]
    )
    np.testing.assert_allclose(trues, expected, rtol=0.05)
